//! A step as one recording. The host runs its step code each time, but what the ops ask for is
//! noted, not launched; the device then gets it whole, as a CUDA graph. Of the last step's graph
//! only the nodes whose arguments changed (a learning rate, the key of a dropout) are revised, so
//! nothing about a step is told twice and no kernel need read its scalars from memory. Where the
//! work itself is other than last time, it is recorded anew.

use std::rc::Rc;

use super::driver::{Recording, Result};
use super::work::Work;
use super::{Gpu, State};
use crate::device::{Memory, Repeats};

/// What was recorded of a stretch of work.
#[derive(Debug, Default)]
pub struct Script(Option<Recorded>);

#[derive(Debug)]
struct Recorded {
    state: Rc<State>,
    recording: Recording,
    work: Vec<Work>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.state.driver.forget(self.recording);
    }
}

impl Repeats for Gpu {
    type Script = Script;

    fn repeat(&self, script: &mut Script, work: &mut dyn FnMut()) {
        let noted = self.note(work);
        if self.fault().is_some() || noted.is_empty() {
            return;
        }
        let old = script.0.take().filter(|old| old.revise(&noted).is_ok_and(|revised| revised));
        script.0 = match old {
            Some(mut recorded) => {
                recorded.work = noted;
                Some(recorded)
            }
            None => self.state.attempt("record", |driver| {
                // SAFETY: as for a launch, see `Gpu::launch`; what runs is noted anew each time,
                // so that its addresses are live.
                let recording = unsafe { driver.record(&noted) }?;
                Ok(Recorded { state: Rc::clone(&self.state), recording, work: noted })
            }),
        };
        if let Some(recorded) = &script.0 {
            // SAFETY: as above.
            self.state.attempt("step", |driver| unsafe { driver.replay(recorded.recording) });
        }
    }
}

impl Gpu {
    /// What `work` asks for. It is asked again where the workspace had to grow, since earlier
    /// notes name memory that is gone by then.
    fn note(&self, work: &mut dyn FnMut()) -> Vec<Work> {
        loop {
            let before = self.workspace_bytes();
            *self.state.noting.borrow_mut() = Some(Vec::new());
            work();
            let noted = self.state.noting.take().unwrap_or_default();
            if self.workspace_bytes() == before || self.fault().is_some() {
                return noted;
            }
        }
    }
}

impl Recorded {
    /// Makes the recording one of `work`; false if it cannot become that. One that stays behind is
    /// given back before another is made: two graphs of a step would take twice the memory.
    fn revise(&self, work: &[Work]) -> Result<bool> {
        let pairs = || work.iter().zip(&self.work);
        if work.len() != self.work.len() || !pairs().all(|(new, old)| new.may_replace(old)) {
            return Ok(false);
        }
        for (index, (new, old)) in pairs().enumerate() {
            if new != old {
                // SAFETY: as for `record`.
                unsafe { self.state.driver.revise(self.recording, index, new) }?;
            }
        }
        Ok(true)
    }
}
