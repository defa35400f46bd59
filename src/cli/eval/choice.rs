//! `warpwright eval choice`: multiple choice by likelihood.

use anyhow::Result;
use serde_json::json;

use super::questions::{Asking, QuestionArgs};
use super::{Job, ModelArgs, OutArgs, conclude, on_device};
use crate::device::Device;
use crate::eval::choice::{Judged, accuracies};
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::prompts::{Answers, Question};
use crate::eval::results::Results;
use crate::predict::Predictor;

/// Multiple choice: is the right completion the likeliest?
///
/// Each choice is put after the prompt, and log p of its tokens added up: as it is (acc of
/// lm-evaluation-harness), a token, and a byte of text (its acc_norm, which divides by characters).
/// A masked model's log p is the pseudo-log-likelihood: each token masked in turn, which takes a
/// sequence a token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: {\"question\": \"2 + 2 =\", \"choices\": [\"3\", \"4\"], \
    \"answer\": 1}\n  \
    warpwright eval choice --model gpt2 --input sums.jsonl\n\n\
    Example: three solved questions before each\n  \
    warpwright eval choice --model gpt2 --input arc.jsonl --shots arc-train.jsonl --k 3 \\\n    \
    --template \"Question: {question}\\nAnswer:\" --out arc.json")]
pub struct ChoiceArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub questions: QuestionArgs,
    /// Column with the list of choices
    #[arg(long, value_name = "COLUMN", default_value = "choices")]
    pub choices: String,
    /// Column with the right one: its number, from 0, or its text
    #[arg(long, value_name = "COLUMN", default_value = "answer")]
    pub answer: String,
    #[command(flatten)]
    pub out: OutArgs,
}

struct Choice<'a> {
    args: &'a ChoiceArgs,
    asking: Asking,
}

/// Reads, asks and tells.
pub fn run(args: &ChoiceArgs) -> Result<()> {
    let answers = Answers::Choices { choices: args.choices.clone(), answer: args.answer.clone() };
    let asking = args.questions.read("{question}", &answers)?;
    conclude(&on_device(&args.model, &Choice { args, asking })?, &args.out)
}

impl Job for Choice<'_> {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results> {
        let (found, _) = self.asking.judge(predictor)?;
        let asked = || self.asking.questions.iter();
        let judged: Vec<Judged> = asked()
            .zip(&found)
            .map(|(question, found)| {
                let bytes = question.completions.iter().map(String::len).collect();
                Judged::new(found, Some(bytes), question.right)
            })
            .collect();
        let row = |(question, judged): (&Question, &Judged)| {
            json!({
                "line": question.line,
                "right": judged.right,
                "by_total": judged.by_total(),
                "by_token": judged.by_token(),
                "by_byte": judged.by_byte(),
                "log_likelihoods": judged.totals,
                "tokens": judged.tokens,
            })
        };
        Ok(Results {
            task: "choice",
            model: Some(self.args.model.model.display().to_string()),
            data: self.args.questions.input.display().to_string(),
            examples: judged.len(),
            unit: "questions",
            metrics: accuracies(&judged, &Bootstrap::default()),
            settings: self.args.questions.settings(&self.asking),
            rows: asked().zip(&judged).map(row).collect(),
        })
    }
}
