//! `warpwright eval completion`: what a model makes of reference completions, and what it writes.

use anyhow::{Result, ensure};
use serde_json::json;

use super::super::generate::check_beams;
use super::questions::{Asking, QuestionArgs};
use super::text::beside;
use super::{Job, ModelArgs, OutArgs, bar, conclude, on_device};
use crate::device::Device;
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::prompts::{Answers, Question};
use crate::eval::results::{Measured, Results};
use crate::generate::beams::Beams;
use crate::generate::sampling::Sampling;
use crate::generate::{Choice, Continuing};
use crate::predict::{PredictError, Predictor};

/// Completions: how likely are the references, and what does the model write itself?
///
/// Of the references: their loss a token, and the share that greedy decoding would write. Then the
/// model continues each prompt, greedily or by beam search: exact match (blanks at the ends aside),
/// and what `eval text` tells.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: {\"prompt\": \"The capital of France is\", \
    \"completion\": \"Paris\"}\n  \
    warpwright eval completion --model gpt2 --input capitals.jsonl --length 5\n\n\
    Example: translation, four sentence pairs before each\n  \
    warpwright eval completion --model runs/pairs --input test.jsonl --shots train.jsonl --k 4 \\\n\
    \x20   --template \"English: {en}\\nFrench:\" --completion fr --beams 4")]
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
    /// Search with so many beams, as `generate --beams` does [default: greedily]
    #[arg(long, value_name = "BEAMS")]
    pub beams: Option<usize>,
    /// What ends an answer, \n for a line break; so does the end of the text
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    pub until: String,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Prompts that are continued together.
const AT_ONCE: usize = 16;

struct Completion<'a> {
    args: &'a CompletionArgs,
    asking: Asking,
}

/// Reads, asks and tells.
pub fn run(args: &CompletionArgs) -> Result<()> {
    args.beams.map_or(Ok(()), check_beams)?;
    let asking = args.questions.read("{prompt}", &Answers::One(args.completion.clone()))?;
    conclude(&on_device(&args.model, &Completion { args, asking })?, &args.out)
}

impl Job for Completion<'_> {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results> {
        ensure!(
            self.args.length == 0 || predictor.model.arch.causal,
            "a masked model writes nothing: give --length 0, to have references judged alone"
        );
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
            let exact: Vec<f64> =
                written.iter().zip(&references).map(|(w, r)| f64::from(w == r)).collect();
            metrics.push(Measured::mean("exact match", &exact, &bootstrap));
            let references: Vec<[&str; 1]> = references.iter().map(|r| [*r]).collect();
            metrics.extend(beside(&written, &references, &bootstrap));
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
        settings["beams"] = self.args.beams.into();
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
    /// What the model writes after each prompt, up to `until`, without blanks at its ends.
    fn written<D: Device>(
        &self,
        predictor: &Predictor<D>,
        prompts: &[String],
    ) -> Result<Vec<String>, PredictError> {
        let until = self.args.until.replace("\\n", "\n");
        let greedy = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
        let beams =
            |count| Choice::Search(Beams { count, length_penalty: 1.0, early_stopping: false });
        let how = Continuing {
            length: self.args.length,
            stops: [until].into_iter().filter(|until| !until.is_empty()).collect(),
            choice: self.args.beams.map_or(Choice::Draw(greedy), beams),
        };
        // What stands between the two is given, but for blanks: they are the model's to write.
        let delimiter = &self.asking.prompter.delimiter;
        let given = |prompt: &String| (prompt.clone() + delimiter).trim_end_matches(' ').into();
        let prompts: Vec<String> = prompts.iter().map(given).collect();
        let bar = bar((prompts.len() * self.args.length) as u64).with_message("writing");
        let mut written = Vec::new();
        for together in prompts.chunks(AT_ONCE) {
            let texts = predictor.generate_all(written.len() as u32, together, &how)?;
            written.extend(texts.iter().map(|found| found.text.trim().to_string()));
            bar.inc((together.len() * self.args.length) as u64);
        }
        bar.finish_and_clear();
        Ok(written)
    }
}
