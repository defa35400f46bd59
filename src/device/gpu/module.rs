//! The kernels that the build compiled for GPUs: a fatbin for each file of `kernels/`, and what
//! each kernel takes on each chip, as ptxas said. Both are empty where there was no nvcc.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What one kernel takes on one chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
