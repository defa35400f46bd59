//! `warpwright eval completion`: what a model makes of reference completions, and what it writes.

use std::ops::ControlFlow;

use anyhow::Result;
use serde_json::json;

use super::questions::{Asking, QuestionArgs};
use super::text::translation;
use super::{Job, ModelArgs, OutArgs, bar, conclude, on_device};
use crate::device::Device;
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::metrics::squad;
use crate::eval::prompts::{Answers, Question};
use crate::eval::results::{Measured, Results};
use crate::predict::{PredictError, Predictor, Sampling};

/// Completions: how likely are the references, and what does the model write itself?
///
/// Of the references: their loss a token, and the share that greedy decoding would write. Then the
/// model continues each prompt greedily: exact match (blanks at the ends aside), SQuAD's exact
/// match and F1 (articles, case and punctuation aside), and BLEU and chrF, for translation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: {\"prompt\": \"The capital of France is\", \
    \"completion\": \"Paris\"}\n  \
    warpwright eval completion --model gpt2 --input capitals.jsonl --length 5\n\n\
    Example: translation, four sentence pairs before each\n  \
    warpwright eval completion --model runs/pairs --input test.jsonl --shots train.jsonl --k 4 \\\n\
    \x20   --template \"English: {en}\\nFrench:\" --completion fr")]
pub struct CompletionArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub questions: QuestionArgs,
    /// Column of the reference
    #[arg(long, value_name = "COLUMN", default_value = "completion")]
    pub completion: String,
    /// Tokens that the model writes at most; 0 to have it write nothing
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub length: usize,
    /// What ends an answer, \n for a line break; so does the end of the text
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    pub until: String,
    #[command(flatten)]
    pub out: OutArgs,
}

struct Completion<'a> {
    args: &'a CompletionArgs,
    asking: Asking,
}

/// Reads, asks and tells.
pub fn run(args: &CompletionArgs) -> Result<()> {
    let asking = args.questions.read("{prompt}", &Answers::One(args.completion.clone()))?;
    conclude(&on_device(&args.model, &Completion { args, asking })?, &args.out)
}

impl Job for Completion<'_> {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results> {
        let (found, prompts) = self.asking.judge(predictor)?;
        let references: Vec<&str> =
            self.asking.questions.iter().map(|q| q.completions[0].trim()).collect();
        let bootstrap = Bootstrap::default();
        let sums: Vec<[f64; 2]> =
            found.iter().map(|f| [-f[0].total(), f[0].each.len() as f64]).collect();
        let loss = |picked: &[usize]| {
            let sum = |part: usize| picked.iter().map(|&i| sums[i][part]).sum::<f64>();
            (!picked.is_empty()).then(|| sum(0) / sum(1))
        };
        let greedy: Vec<f64> = found.iter().map(|f| f64::from(f[0].greedy)).collect();
        let mut metrics = vec![
            Measured::new("loss [nats a token]", sums.len(), &bootstrap, loss),
            Measured::mean("reference is greedy", &greedy, &bootstrap),
        ];
        let written = match self.args.length {
            0 => vec![],
            _ => self.written(predictor, &prompts)?,
        };
        if !written.is_empty() {
            let pairs = || written.iter().zip(&references);
            let exact: Vec<f64> = pairs().map(|(w, r)| f64::from(w == r)).collect();
            let scores: Vec<squad::Score> = pairs().map(|(w, r)| squad::v1(w, &[*r])).collect();
            let by = |part: fn(&squad::Score) -> f64| scores.iter().map(part).collect::<Vec<_>>();
            metrics.push(Measured::mean("exact match", &exact, &bootstrap));
            metrics.push(Measured::mean("exact match, SQuAD", &by(|s| s.exact), &bootstrap));
            metrics.push(Measured::mean("F1, SQuAD", &by(|s| s.f1), &bootstrap));
            let references: Vec<[&str; 1]> = references.iter().map(|r| [*r]).collect();
            metrics.extend(translation(&written, &references, &bootstrap));
        }
        let row = |(i, question): (usize, &Question)| {
            json!({
                "line": question.line,
                "reference": references[i],
                "written": written.get(i),
                "log_likelihood": found[i][0].total(),
                "tokens": found[i][0].each.len(),
                "greedy": found[i][0].greedy,
            })
        };
        let mut settings = self.args.questions.settings(&self.asking);
        settings["length"] = self.args.length.into();
        settings["until"] = self.args.until.clone().into();
        Ok(Results {
            task: "completion",
            model: Some(self.args.model.model.display().to_string()),
            data: self.args.questions.input.display().to_string(),
            examples: found.len(),
            unit: "prompts",
            metrics,
            settings,
            rows: self.asking.questions.iter().enumerate().map(row).collect(),
        })
    }
}

impl Completion<'_> {
    /// What the model writes after each prompt, blanks at its ends left away.
    fn written<D: Device>(
        &self,
        predictor: &Predictor<D>,
        prompts: &[String],
    ) -> Result<Vec<String>, PredictError> {
        let until = self.args.until.replace("\\n", "\n");
        let bar = bar((prompts.len() * self.args.length) as u64).with_message("writing");
        let written = prompts.iter().map(|prompt| {
            let text = greedy(predictor, prompt, self.args.length, &until)?;
            bar.inc(self.args.length as u64);
            Ok(text)
        });
        let written = written.collect();
        bar.finish_and_clear();
        written
    }
}

/// A prompt continued greedily, up to `until`.
fn greedy<D: Device>(
    predictor: &Predictor<D>,
    prompt: &str,
    length: usize,
    until: &str,
) -> Result<String, PredictError> {
    let sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
    let mut text = String::new();
    // An answer may begin with what ends it: the delimiter after the prompt is the model's to write.
    let ended = |text: &str| !until.is_empty() && text.trim_start().contains(until);
    predictor.generate(prompt.trim_end(), length, &sampling, |piece| {
        text.push_str(piece);
        if ended(&text) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let text = text.trim();
    Ok(text.split(until).next().filter(|_| !until.is_empty()).unwrap_or(text).trim().into())
}
