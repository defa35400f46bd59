//! The kernels that the build compiled for GPUs: a fatbin for each file of `kernels/`, and what
//! each kernel takes on each chip, as ptxas said. Both are empty where there was no nvcc.

use serde::Serialize;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What one kernel takes on one chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Built {
    /// The file it is in, without folder and extension: a name in [`MODULES`].
    pub module: &'static str,
    pub kernel: &'static str,
    /// Such as `sm_90a`.
    pub arch: &'static str,
    /// A thread.
    pub registers: u32,
    /// Static shared memory of a block [bytes].
    pub shared: u32,
    /// Of a thread [bytes].
    pub stack: u32,
}

/// Every kernel on every chip that it was compiled for.
pub fn built() -> impl Iterator<Item = Built> {
    RESOURCES.lines().skip(1).map(|row| {
        let mut cells = row.split('\t');
        let mut word = || cells.next().expect("a row of build.rs has all columns");
        let (module, kernel, arch) = (word(), word(), word());
        let mut number = || word().parse().expect("build.rs wrote a number");
        Built { module, kernel, arch, registers: number(), shared: number(), stack: number() }
    })
}

/// The name and the fatbin of the file that holds a kernel.
pub fn of_kernel(kernel: &str) -> Option<(&'static str, &'static [u8])> {
    let module = built().find(|built| built.kernel == kernel)?.module;
    MODULES.iter().find(|(name, _)| *name == module).copied()
}

/// How a GPU gets a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As machine code for this chip.
    Code(&'static str),
    /// As PTX, which its driver compiles.
    Ptx,
    /// Not at all.
    Absent,
}

impl Form {
    /// The form for a GPU of a compute capability, of a kernel that was compiled for `chips`.
    /// Machine code runs on chips of its major version and no lower minor one, or where it ends
    /// in `a` on its own alone; PTX on all that are newer.
    pub fn of(chips: impl Iterator<Item = &'static str>, capability: (u32, u32)) -> Form {
        let chips: Vec<&str> = chips.collect();
        let runs = |chip: &&&str| {
            let own = number(chip);
            own == capability || !chip.ends_with('a') && own.0 == capability.0 && own <= capability
        };
        match chips.iter().filter(runs).max_by_key(|chip| number(chip)) {
            Some(chip) => Form::Code(chip),
            None if chips.contains(&WITH_PTX) && number(WITH_PTX) <= capability => Form::Ptx,
            None => Form::Absent,
        }
    }
}

/// Whether a kernel, as such a GPU gets it, has the instructions by which it waits for others:
/// those of `kernels/ptx/grid.cuh`, which are for machine code from sm_90 on.
pub fn waits(kernel: &str, capability: (u32, u32)) -> bool {
    let chips = built().filter(|built| built.kernel == kernel).map(|built| built.arch);
    matches!(Form::of(chips, capability), Form::Code(chip) if number(chip) >= (9, 0))
}

/// The compute capability of a chip such as `sm_90a`.
fn number(chip: &str) -> (u32, u32) {
    let digits = chip.trim_start_matches("sm_").trim_end_matches('a');
    let number: u32 = digits.parse().expect("build.rs names chips by number");
    (number / 10, number % 10)
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn a_gpu_gets_the_machine_code_of_its_kin_or_else_ptx() {
        let chips = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100"];
        for (capability, form) in [
            ((7, 5), Form::Absent),
            ((8, 0), Form::Code("sm_80")),
            ((8, 6), Form::Code("sm_86")),
            ((8, 7), Form::Code("sm_86")),
            ((8, 9), Form::Code("sm_89")),
            ((9, 0), Form::Code("sm_90a")),
            ((10, 3), Form::Code("sm_100")),
            ((12, 0), Form::Ptx),
        ] {
            assert_eq!(Form::of(chips.into_iter(), capability), form, "{capability:?}");
        }
        assert_eq!(Form::of(["sm_90a"].into_iter(), (9, 1)), Form::Absent);
        assert_eq!(Form::of(["sm_80"].into_iter(), (9, 0)), Form::Ptx);
    }
}
