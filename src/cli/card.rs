//! What only a person knows of a model, for its card.

use std::path::{Path, PathBuf};

use crate::card::Known;

/// The card (README.md) says what the run wrote down; these say what it could not know.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The model's card")]
pub struct CardArgs {
    /// Licence of the model by the Hub's name, such as apache-2.0 [default: said to be unknown]
    #[arg(long, value_name = "NAME")]
    pub license: Option<String>,
    /// Languages by their codes, such as en,fr
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub language: Vec<String>,
    /// The data's names on the Hub, where they have some
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub dataset: Vec<String>,
    /// Licence of the data, in words [default: said to be unknown]
    #[arg(long, value_name = "TEXT")]
    pub data_license: Option<String>,
    /// The Hub's name of the model that was finetuned
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// Results to tell, as `eval … --out` wrote them; may be given several times
    #[arg(long, value_name = "FILE")]
    pub evaluation: Vec<PathBuf>,
    /// Energy to tell, as `bench step --json` wrote it
    #[arg(long, value_name = "FILE")]
    pub bench: Option<PathBuf>,
}

impl CardArgs {
    /// Of the model that is written to `to`.
    pub fn known(&self, to: &Path) -> Known {
        Known {
            name: to.file_name().unwrap_or(to.as_os_str()).to_string_lossy().into_owned(),
            license: self.license.clone(),
            languages: self.language.clone(),
            datasets: self.dataset.clone(),
            data_license: self.data_license.clone(),
            base: self.base_model.clone(),
            evaluations: self.evaluation.clone(),
            bench: self.bench.clone(),
        }
    }
}
