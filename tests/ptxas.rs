//! What `build.rs` makes of ptxas's reports: resources of kernels, and remarks that fail the build.
//! The files in `ptxas/` are reports of nvcc 13.4.

#[path = "../build/ptxas.rs"]
mod ptxas;

use ptxas::{Problem, Report, Resources};

const SPILLS: &str = include_str!("ptxas/spills.txt");
const WGMMA: &str = include_str!("ptxas/wgmma.txt");
const SETMAXNREG: &str = include_str!("ptxas/setmaxnreg.txt");

/// Function, chip and line of each problem.
fn places(report: &Report) -> Vec<(&str, &str, usize)> {
    let place = |p: &Problem| (p.function.clone(), p.arch.clone(), p.line);
    assert!(report.problems.iter().all(|p| p.to_string().contains(&place(p).1)));
    report.problems.iter().map(|p| (p.function.as_str(), p.arch.as_str(), p.line)).collect()
}

#[test]
fn a_report_tells_what_each_kernel_takes_on_each_chip() {
    let report = Report::parse(SPILLS);
    let row = |kernel: &str, arch: &str, [registers, shared, stack, constant]: [u32; 4]| {
        let (kernel, arch) = (kernel.into(), arch.into());
        Resources { kernel, arch, registers, shared, stack, constant }
    };
    // ptxas tells the constant bank of older chips only.
    let expected = [
        row("indexes", "sm_80", [30, 0, 256, 364]),
        row("calls", "sm_80", [10, 1024, 0, 360]),
        row("spills", "sm_80", [32, 0, 168, 368]),
        row("indexes", "sm_90a", [30, 0, 256, 0]),
        row("calls", "sm_90a", [10, 1024, 0, 0]),
        row("spills", "sm_90a", [32, 0, 160, 0]),
    ];
    assert_eq!(report.kernels, expected);
}

#[test]
fn a_spill_is_a_problem_and_a_stack_is_not() {
    let report = Report::parse(SPILLS);
    assert_eq!(places(&report), [("spills", "sm_80", 17), ("spills", "sm_90a", 36)]);
    assert!(report.problems[0].remark.contains("180 bytes spill stores"));
    let clean = SPILLS.lines().filter(|line| !line.contains("160 bytes") && !line.contains("168"));
    let clean: Vec<&str> = clean.collect();
    assert_eq!(Report::parse(&clean.join("\n")).problems, []);
}

#[test]
fn a_spill_in_a_function_that_a_kernel_calls_is_a_problem() {
    let at = SPILLS.find("properties for _Z6squaref").unwrap();
    let (before, rest) = SPILLS.split_at(at);
    let text =
        format!("{before}{}", rest.replacen("0 bytes spill loads", "8 bytes spill loads", 1));
    let report = Report::parse(&text);
    assert_eq!(places(&report)[0], ("_Z6squaref", "sm_80", 14));
    assert_eq!(report.kernels, Report::parse(SPILLS).kernels);
}

#[test]
fn products_that_were_serialised_are_a_problem() {
    let report = Report::parse(WGMMA);
    let kernel = "gemm_wgmma_bf16";
    assert_eq!(places(&report), [(kernel, "sm_90a", 1), (kernel, "sm_90a", 2)]);
    let said = report.problems[1].to_string();
    assert!(said.contains("C7511") && said.contains("line 2 of the report"), "{said}");
}

#[test]
fn registers_that_were_not_handed_over_are_a_problem() {
    let report = Report::parse(SETMAXNREG);
    // This remark names no kernel.
    assert_eq!(places(&report), [("", "sm_90a", 1)]);
    assert!(report.problems[0].to_string().starts_with("one of its kernels, sm_90a: "));
}

#[test]
fn numbers_of_other_families_are_no_problem() {
    for remark in ["(C7602) something else", "ABC75", "C75x1", ""] {
        assert_eq!(Report::parse(remark), Report::default(), "{remark}");
    }
}
