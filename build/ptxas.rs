//! Reads what ptxas says about the kernels it assembled (`-Xptxas -v,-warn-spills`).
//!
//! Two of its remarks tell of a kernel that is slow where nobody would look, and the build fails on
//! them: a spill (registers kept in memory), and the numbers C75xx (asynchronous products or
//! register hand-over that the compiler gave up on). Shared by `build.rs` and `tests/ptxas.rs`.

use std::fmt;

/// What one kernel takes on one chip.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub kernel: String,
    pub arch: String,
    /// A thread.
    pub registers: u32,
    /// Bytes of static shared memory a block.
    pub shared: u32,
    /// Bytes of stack a thread.
    pub stack: u32,
    /// Bytes in all constant banks: the arguments among them.
    pub constant: u32,
}

/// A remark that fails the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In the report, from 1.
    pub line: usize,
    /// The function it is about; some remarks do not say, and it is empty.
    pub function: String,
    pub arch: String,
    pub remark: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Problem { line, function, arch, remark } = self;
        let function = if function.is_empty() { "one of its kernels" } else { function };
        write!(f, "{function}, {arch}: {remark} (line {line} of the report)")
    }
}

/// Everything that one report says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub kernels: Vec<Resources>,
    pub problems: Vec<Problem>,
}

impl Report {
    /// A report has a part for each chip: numbered remarks, then the kernels, and for each its
    /// properties and those of functions that it calls.
    pub fn parse(text: &str) -> Report {
        let mut report = Report::default();
        let mut kernel = Resources::default();
        let mut function = "";
        // Problems whose chip the next kernel tells.
        let mut early = 0;
        for (i, line) in text.lines().enumerate() {
            let problem = |function: &str, arch: &str| Problem {
                line: i + 1,
                function: function.to_string(),
                arch: arch.to_string(),
                remark: line.trim().to_string(),
            };
            if let Some(rest) = after(line, "Compiling entry function '") {
                let quoted: Vec<&str> = rest.split('\'').collect();
                let [name, _, arch, ..] = quoted[..] else { continue };
                kernel = Resources { kernel: name.into(), arch: arch.into(), ..Default::default() };
                report.problems[early..].iter_mut().for_each(|p| p.arch = arch.into());
                early = report.problems.len();
            } else if let Some(name) = after(line, "Function properties for ") {
                function = name.trim();
            } else if line.contains(" bytes stack frame") {
                if function == kernel.kernel {
                    kernel.stack = amount(line, "bytes stack frame");
                }
                if amount(line, "bytes spill stores") + amount(line, "bytes spill loads") > 0 {
                    report.problems.push(problem(function, &kernel.arch));
                    early = report.problems.len();
                }
            } else if line.contains("Used ") && line.contains(" registers") {
                kernel.registers = amount(line, "registers");
                kernel.shared = amount(line, "bytes smem");
                kernel.constant = amounts(line, "bytes cmem[").sum();
                report.kernels.push(kernel.clone());
            } else if is_numbered(line) {
                let named = after(line, "function '").and_then(|rest| rest.split('\'').next());
                report.problems.push(problem(named.unwrap_or_default(), ""));
            }
        }
        report
    }
}

/// Whether a line bears a number C75xx.
fn is_numbered(line: &str) -> bool {
    line.match_indices("C75").any(|(at, _)| {
        let number = line.as_bytes().get(at + 3..at + 5);
        number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
    })
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest)
}

/// The number before `what` in a list such as `90 registers, 49152 bytes smem`; 0 where it is not.
fn amount(line: &str, what: &str) -> u32 {
    amounts(line, what).next().unwrap_or(0)
}

/// The numbers before each `what`.
fn amounts<'a>(line: &'a str, what: &'a str) -> impl Iterator<Item = u32> + 'a {
    line.match_indices(what).filter_map(|(at, _)| {
        line[..at].split_whitespace().next_back().and_then(|number| number.parse().ok())
    })
}
