//! The command line: one variant a subcommand, each in its own file under `cli/`.

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use warpwright::cli::{
    self, bench, data, embed, eval, explain, export, fill, finetune, generate, info, plan, predict,
    pretrain, report, score, trace, verify,
};

/// Trains transformers from scratch: hand-written kernels, a lean loop, one binary
///
/// Start with `warpwright pretrain`: with no flags it trains a small language model on the text
/// that ships with the program, in a few minutes on two cores.
#[derive(Debug, Parser)]
#[command(name = "warpwright", version, max_term_width = 100)]
enum Command {
    Pretrain(pretrain::PretrainArgs),
    Finetune(Box<finetune::FinetuneArgs>),
    Predict(predict::PredictArgs),
    Fill(fill::FillArgs),
    Generate(generate::GenerateArgs),
    /// Make training data from text, and look into it
    #[command(subcommand)]
    Data(data::DataCommand),
    Plan(plan::PlanArgs),
    /// Measure a model on text or questions, or answers beside what is right
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    Explain(explain::ExplainArgs),
    Embed(embed::EmbedArgs),
    Score(score::ScoreArgs),
    Export(export::ExportArgs),
    Trace(trace::TraceArgs),
    Report(report::ReportArgs),
    Verify(verify::VerifyArgs),
    /// Measure kernels and training steps, and compare two machines
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Info(info::InfoArgs),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Pretrain(args) => pretrain::run(args),
        Command::Finetune(args) => finetune::run(*args),
        Command::Predict(args) => predict::run(args),
        Command::Fill(args) => fill::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Data(command) => data::run(&command),
        Command::Plan(args) => plan::run(args),
        Command::Eval(command) => eval::run(&command),
        Command::Explain(args) => explain::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Score(args) => score::run(args),
        Command::Export(args) => export::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Report(args) => report::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(command) => bench::run(&command),
        Command::Info(args) => info::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed too there is no one to tell.
            let _ = writeln!(stderr(), "error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, but for those that it tells itself.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}
