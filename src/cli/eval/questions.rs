//! Questions from a file, for `choice` and `completion`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::judged;
use crate::device::Device;
use crate::eval::likelihood::{Asked, Likelihood};
use crate::eval::prompts::{Answers, Prompter, Question, Template, questions};
use crate::finetune::table::Table;
use crate::predict::Predictor;

#[derive(Debug, clap::Args)]
pub struct QuestionArgs {
    /// A row a question: .jsonl, or where columns are text .csv and .tsv
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The prompt, with columns in braces, \n for a line break [default: the column named as
    /// below]
    #[arg(long, value_name = "TEXT")]
    pub template: Option<String>,
    /// Between a prompt and its completion
    #[arg(long, value_name = "TEXT", default_value = " ")]
    pub delimiter: String,
    /// Answered questions to put before each, drawn from here; may be --input itself
    #[arg(long, value_name = "FILE")]
    pub shots: Option<PathBuf>,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 5, requires = "shots")]
    pub k: usize,
    /// Seed of their drawing
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// No <|endoftext|> before the prompt: lm-evaluation-harness' way with GPT-2, not ours
    #[arg(long)]
    pub bare: bool,
    /// Only the first so many questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// The questions, and how they become prompts.
pub struct Asking {
    pub questions: Vec<Question>,
    pub prompter: Prompter,
}

impl QuestionArgs {
    /// Reads all files.
    pub fn read(&self, template: &str, answers: &Answers) -> Result<Asking> {
        let template = Template::parse(self.template.as_deref().unwrap_or(template))?;
        let mut asked = questions(&Table::read(&self.input)?, &template, answers)?;
        let (pool, pool_path) = match &self.shots {
            Some(path) => {
                (questions(&Table::read(path)?, &template, answers)?, path.display().to_string())
            }
            None => (vec![], String::new()),
        };
        asked.truncate(self.limit.unwrap_or(usize::MAX));
        ensure!(!asked.is_empty(), "--limit 0 leaves no question");
        let prompter = Prompter {
            path: self.input.clone(),
            pool,
            pool_path,
            shots: if self.shots.is_some() { self.k } else { 0 },
            seed: self.seed,
            delimiter: self.delimiter.replace("\\n", "\n"),
            begins: !self.bare,
        };
        Ok(Asking { questions: asked, prompter })
    }

    /// What the figures depend on.
    pub fn settings(&self, asking: &Asking) -> Value {
        json!({
            "template": self.template,
            "delimiter": asking.prompter.delimiter,
            "shots": asking.prompter.shots,
            "shots_from": self.shots,
            "seed": self.seed,
            "end_of_text_first": !self.bare,
        })
    }
}

impl Asking {
    /// The likelihood of each completion of each question, and the prompts.
    pub fn judge<D: Device>(
        &self,
        predictor: &Predictor<D>,
    ) -> Result<(Vec<Vec<Likelihood>>, Vec<String>)> {
        let (mut asked, mut prompts, mut cut): (Vec<Asked>, _, _) = (vec![], vec![], 0);
        for (i, question) in self.questions.iter().enumerate() {
            let prompt = self.prompter.prompt(i, question)?;
            let mut is_cut = false;
            for completion in &question.completions {
                let framed = self.prompter.frame(predictor, question.line, &prompt, completion)?;
                is_cut |= framed.cut;
                asked.push(framed.asked);
            }
            cut += usize::from(is_cut);
            prompts.push(prompt);
        }
        if cut > 0 {
            let context = predictor.model.arch.context;
            eprintln!("{cut} prompts were cut at their beginning to fit {context} tokens");
        }
        let mut found = judged(predictor, &asked)?.into_iter();
        let each =
            self.questions.iter().map(|q| found.by_ref().take(q.completions.len()).collect());
        Ok((each.collect(), prompts))
    }
}
