use clap::Parser;
use warpwright::cli::data::{self, DataCommand};

/// Trains transformers from scratch.
#[derive(Parser)]
#[command(name = "warpwright", version)]
enum Command {
    #[command(subcommand)]
    Data(DataCommand),
}

fn main() -> anyhow::Result<()> {
    let Command::Data(command) = Command::parse();
    data::run(&command)
}
