//! Clock, power, temperature and what holds the clock down, from NVIDIA's management library, which
//! is loaded when asked for. Without it, or where it does not answer, nothing is known.

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;

use libloading::Library;
use serde::{Deserialize, Serialize};

use super::probe;

/// The state of a GPU at a moment; None: not told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Of the multiprocessors [MHz].
    pub clock: Option<u32>,
    /// [W]
    pub power: Option<f64>,
    /// At which its power is capped [W].
    pub power_limit: Option<f64>,
    /// [°C]
    pub temperature: Option<u32>,
    /// What holds the clock down, in words.
    pub throttled: Option<Vec<String>>,
}

type Device = *mut c_void;

/// The library, started, and the GPU in it.
pub struct Nvml {
    device: Device,
    library: Library,
}

/// `NVML_CLOCK_SM`
const CLOCK_SM: c_uint = 1;
/// `NVML_TEMPERATURE_GPU`
const TEMPERATURE_GPU: c_uint = 0;

/// Bits of `nvmlDeviceGetCurrentClocksThrottleReasons` (nvml.h). That a GPU is idle is no reason
/// to worry.
const REASONS: [(u64, &str); 8] = [
    (0x2, "application clocks"),
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "thermal, software"),
    (0x40, "thermal, hardware"),
    (0x80, "power brake"),
    (0x100, "display clocks"),
];

impl Nvml {
    /// Of the GPU that [`super::super::open`] takes.
    pub fn of_first() -> Option<Nvml> {
        Nvml::open(probe::devices().ok()?.first()?.pci.as_deref()?)
    }

    /// The GPU at this place on the bus, e.g. `00000000:3B:00.0`; None where there is no NVML, or
    /// it does not know it.
    pub fn open(pci: &str) -> Option<Nvml> {
        // SAFETY: loading NVML runs its start-up code, as nvidia-smi does.
        let library = unsafe { Library::new("libnvidia-ml.so.1") }.ok()?;
        let pci = CString::new(pci).ok()?;
        let mut device: Device = std::ptr::null_mut();
        // SAFETY: the two functions have these types in nvml.h; the handle outlives the call.
        let found = unsafe {
            let init = library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlInit_v2").ok()?;
            let by_pci = library
                .get::<unsafe extern "C" fn(*const c_char, *mut Device) -> c_int>(
                    b"nvmlDeviceGetHandleByPciBusId_v2",
                )
                .ok()?;
            init() == 0 && by_pci(pci.as_ptr(), &mut device) == 0
        };
        found.then_some(Nvml { device, library })
    }

    /// How the GPU is now.
    pub fn read(&self) -> Reading {
        Reading {
            clock: self.number_of(b"nvmlDeviceGetClockInfo", CLOCK_SM),
            power: self.number(b"nvmlDeviceGetPowerUsage").map(|mw| f64::from(mw) / 1e3),
            power_limit: self
                .number(b"nvmlDeviceGetEnforcedPowerLimit")
                .map(|mw| f64::from(mw) / 1e3),
            temperature: self.number_of(b"nvmlDeviceGetTemperature", TEMPERATURE_GPU),
            throttled: self.long_number(b"nvmlDeviceGetCurrentClocksThrottleReasons").map(words),
        }
    }

    /// What the GPU has taken since its driver was loaded [J].
    pub fn energy(&self) -> Option<f64> {
        self.long_number(b"nvmlDeviceGetTotalEnergyConsumption").map(|mj| mj as f64 / 1e3)
    }

    /// What a function of the device alone answers.
    fn number(&self, function: &[u8]) -> Option<u32> {
        let mut value: c_uint = 0;
        // SAFETY: the functions asked for so have this type in nvml.h.
        let answer = unsafe {
            let ask = self
                .library
                .get::<unsafe extern "C" fn(Device, *mut c_uint) -> c_int>(function)
                .ok()?;
            ask(self.device, &mut value)
        };
        (answer == 0).then_some(value)
    }

    /// What a function of the device and a kind answers.
    fn number_of(&self, function: &[u8], kind: c_uint) -> Option<u32> {
        let mut value: c_uint = 0;
        // SAFETY: the functions asked for so have this type in nvml.h.
        let answer = unsafe {
            let ask = self
                .library
                .get::<unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> c_int>(function)
                .ok()?;
            ask(self.device, kind, &mut value)
        };
        (answer == 0).then_some(value)
    }

    /// The same, of 64 bits.
    fn long_number(&self, function: &[u8]) -> Option<u64> {
        let mut value: c_ulonglong = 0;
        // SAFETY: the functions asked for so have this type in nvml.h.
        let answer = unsafe {
            let ask = self
                .library
                .get::<unsafe extern "C" fn(Device, *mut c_ulonglong) -> c_int>(function)
                .ok()?;
            ask(self.device, &mut value)
        };
        (answer == 0).then_some(value)
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // SAFETY: the function has this type in nvml.h, and nothing is asked after it.
        unsafe {
            if let Ok(end) = self.library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlShutdown") {
                end();
            }
        }
    }
}

/// What these bits stand for.
fn words(bits: u64) -> Vec<String> {
    let named = REASONS.iter().filter(|(bit, _)| bits & bit != 0);
    named.map(|(_, name)| name.to_string()).collect()
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fn known<T: fmt::Display>(value: &Option<T>, unit: &str) -> String {
            value.as_ref().map_or("unknown".into(), |value| format!("{value}{unit}"))
        }
        let limit = self.power_limit.map_or(String::new(), |watts| format!(" of {watts:.0} W"));
        let power = self.power.map(|watts| format!("{watts:.0}"));
        let throttled = match &self.throttled {
            None => "unknown whether throttled".into(),
            Some(reasons) if reasons.is_empty() => "not throttled".into(),
            Some(reasons) => format!("throttled by {}", reasons.join(", ")),
        };
        let clock = known(&self.clock, " MHz");
        let (power, temperature) = (known(&power, " W"), known(&self.temperature, " °C"));
        write!(f, "clock {clock}, power {power}{limit}, {temperature}, {throttled}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_unknown() {
        let told = Reading::default().to_string();
        assert_eq!(told, "clock unknown, power unknown, unknown, unknown whether throttled");
        assert_eq!(words(0x1), [""; 0]);
        assert_eq!(words(0x5), ["power cap"]);
        let hot = Reading {
            clock: Some(1980),
            power: Some(699.6),
            power_limit: Some(700.0),
            temperature: Some(71),
            throttled: Some(words(0x44)),
        };
        let said = "clock 1980 MHz, power 700 W of 700 W, 71 °C, throttled by power cap, thermal, \
                    hardware";
        assert_eq!(hot.to_string(), said);
    }
}
