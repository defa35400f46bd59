//! How files of labelled rows are read, by `finetune` and by `eval task`.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::data::Tokenizer;
use crate::finetune::examples::{Columns, Example, Examples};
use crate::finetune::questions::{Decoding, some_unanswerable};
use crate::finetune::reader::{Data, Reader};
use crate::model::arch::{Arch, TaskKind};

#[derive(Debug, Clone, clap::Args)]
pub struct RowArgs {
    /// Column of the text [default: text; tokens, question or prompt, by the task]
    #[arg(long, value_name = "COLUMN")]
    pub text: Option<String>,
    /// Column of a second text; of answers the context [default: context]
    #[arg(long, value_name = "COLUMN")]
    pub pair: Option<String>,
    /// Column of what is right: a class, a number, labels (a list, or names with | between)
    /// [default: label; labels, answer or completion, by the task]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Tokens of a sequence, special ones included. Longer rows are cut; sentences and contexts go
    /// on in another
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub longest: usize,
    #[command(flatten)]
    pub answers: AnswerArgs,
}

impl RowArgs {
    /// What such a task's columns are called.
    ///
    /// # Errors
    /// A column that it does not have.
    pub fn columns(&self, kind: Option<TaskKind>) -> Result<Columns> {
        let has_pairs = !matches!(kind, None | Some(TaskKind::Tokens));
        ensure!(
            has_pairs || self.pair.is_none(),
            "--pair: such a task is of single texts; leave it away"
        );
        let named = [&self.text, &self.pair, &self.label].map(Option::as_deref);
        Ok(Columns::of_task(kind, named))
    }

    /// A file's examples; what was noticed while reading is told.
    pub fn examples(
        &self,
        (arch, tokenizer): (&Arch, &Tokenizer),
        columns: &Columns,
        path: &Path,
        data: Data,
    ) -> Result<Vec<Example>> {
        let (longest, stride) = (self.longest, self.answers.stride);
        let Examples { examples, notes } =
            Reader { arch, tokenizer, columns, longest, stride }.read(path, data)?;
        notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
        Ok(examples)
    }
}

/// How contexts are read, and answers found in them.
#[derive(Debug, Clone, clap::Args)]
pub struct AnswerArgs {
    /// Of answers: tokens that neighbouring windows of a long context share; half of a window at
    /// most
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub stride: usize,
    /// Of answers: tokens of one at most
    #[arg(long, value_name = "TOKENS", default_value_t = 30)]
    pub longest_answer: usize,
    /// Of answers: none is given where none is likelier than the best one by more than this
    /// [nats]. Without it there is always an answer, unless some question of the data has none:
    /// then it is 0
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    pub null_threshold: Option<f64>,
}

impl AnswerArgs {
    pub fn check(&self) -> Result<()> {
        ensure!(self.longest_answer > 0, "--longest-answer is 0: give at least 1");
        ensure!(
            self.null_threshold.is_none_or(f64::is_finite),
            "--null-threshold: give a finite number"
        );
        Ok(())
    }

    pub fn decoding(&self) -> Decoding {
        Decoding {
            longest: self.longest_answer,
            threshold: self.null_threshold,
            ..Decoding::default()
        }
    }

    /// That of files of questions, of which some may have no answer.
    pub fn decoding_of<const N: usize>(&self, files: [&Vec<Example>; N]) -> Decoding {
        let mut decoding = self.decoding();
        if files.iter().any(|examples| some_unanswerable(examples)) {
            decoding.threshold.get_or_insert(0.0);
        }
        decoding
    }
}
