//! Generation: over the cache as without it, many texts as one by one, and as transformers does it.

mod support;

use std::path::Path;

use serde::Deserialize;
use support::{lively, uniform, zoo};
use warpwright::device::Buffer;
use warpwright::device::cpu::Cpu;
use warpwright::generate::beams::{Beams, Hypothesis, search};
use warpwright::generate::decoder::{Decoder, Sequence};
use warpwright::generate::draw;
use warpwright::generate::sampling::Sampling;
use warpwright::hf::ModelDir;
use warpwright::model::arch::Arch;
use warpwright::model::transformer::Model;

type Reference = Cpu<f64>;

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 1 };

fn model(arch: &Arch) -> Model<Reference> {
    let mut model = Model::new(&Reference::new(), arch).unwrap();
    model.params.write(0, &lively(arch, 11));
    model
}

/// Every causal architecture that speaks.
fn causal() -> Vec<(String, Arch)> {
    zoo().into_iter().filter(|(_, arch)| arch.causal && arch.task.is_none()).collect()
}

/// Random ids, so many of each.
fn prompts(arch: &Arch, lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut u = uniform(5);
    let mut id = || (u() * arch.vocab as f64) as u32;
    lengths.iter().map(|&n| (0..n).map(|_| id()).collect()).collect()
}

/// Logits of sequences of which nothing is kept.
fn anew(model: &Model<Reference>, ids: &[Vec<u32>]) -> Vec<f64> {
    let dev = Reference::new();
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let mut sequences: Vec<Sequence> = ids.iter().cloned().map(Sequence::new).collect();
    Decoder::new(&dev, model, &lengths, 1, 0).logits(&mut sequences).unwrap()
}

#[test]
fn what_is_kept_is_what_would_be_computed() {
    let dev = Reference::new();
    for (name, arch) in causal() {
        let model = model(&arch);
        let lengths = [3, 1, 14, arch.context - 2, arch.context + 4];
        let mut sequences: Vec<Sequence> =
            prompts(&arch, &lengths).into_iter().map(Sequence::new).collect();
        let mut decoder = Decoder::new(&dev, &model, &lengths, 2, 40);
        let mut u = uniform(7);
        // Until all have outgrown the context, and one has gone two ways on the way.
        for step in 0..arch.context + 3 {
            let got = decoder.logits(&mut sequences).unwrap();
            let ids: Vec<Vec<u32>> = sequences.iter().map(|s| s.ids().to_vec()).collect();
            let want = anew(&model, &ids);
            let largest = want.iter().fold(0.0_f64, |top, w| top.max(w.abs()));
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 1e-12 * largest, "{name}, step {step}: {got} {want}");
            }
            if step == 4 {
                sequences.push(sequences[0].clone());
            }
            for sequence in &mut sequences {
                sequence.push((u() * arch.vocab as f64) as u32);
            }
        }
    }
}

/// Each continuation the prompt's likeliest token after token, every one from a whole pass.
fn greedily(model: &Model<Reference>, prompt: &[u32], length: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..length {
        let logits = anew(model, std::slice::from_ref(&ids));
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        ids.push(logits.iter().position(|&z| z == top).unwrap() as u32);
    }
    ids[prompt.len()..].to_vec()
}

#[test]
fn many_texts_are_those_of_one_by_one() {
    let dev = Reference::new();
    for (name, arch) in causal() {
        let model = model(&arch);
        let lengths = [5, 1, 20, 9];
        let prompts = prompts(&arch, &lengths);
        let drawn = |which: &[usize], sampling: &Sampling| -> Vec<Vec<u32>> {
            let prompts: Vec<Vec<u32>> = which.iter().map(|&i| prompts[i].clone()).collect();
            let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
            let mut decoder = Decoder::new(&dev, &model, &lengths, 1, 12);
            let settings = (which[0] as u32, 12, sampling);
            // They end apart, so that steps are of fewer and fewer.
            draw(&mut decoder, prompts, settings, |_, new| Ok(new[new.len() - 1] % 8 == 3)).unwrap()
        };
        let warm = Sampling { temperature: 0.9, top_k: 20, top_p: 0.95, seed: 3 };
        for sampling in [GREEDY, warm] {
            let all = drawn(&[0, 1, 2, 3], &sampling);
            for (i, of_all) in all.iter().enumerate() {
                assert_eq!(drawn(&[i], &sampling)[0], *of_all, "{name}, text {i}");
                assert!(!of_all.is_empty() && of_all.len() <= 12);
            }
        }
        let mut decoder = Decoder::new(&dev, &model, &lengths, 1, 12);
        let all = draw(&mut decoder, prompts.clone(), (0, 12, &GREEDY), |_, _| Ok(false)).unwrap();
        for (prompt, got) in prompts.iter().zip(&all) {
            assert_eq!(*got, greedily(&model, prompt, 12), "{name}");
        }
    }
}

/// As `tests/golden/generate.py` writes it.
#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    length: usize,
    end: u32,
    beams: usize,
    length_penalty: f64,
    early_stopping: bool,
    ids: Vec<u32>,
    score: Option<f64>,
}

impl Golden {
    fn beams(&self) -> Beams {
        let &Golden { beams: count, length_penalty, early_stopping, .. } = self;
        Beams { count, length_penalty, early_stopping }
    }
}

fn golden() -> (Model<Reference>, Vec<Golden>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2");
    let dir = ModelDir::open(&folder).unwrap();
    let mut model = Model::new(&Reference::new(), &dir.arch).unwrap();
    let params = &mut model.params;
    dir.load(&model.layout.table, |param, start, values| {
        params.write(param.span.start + start, values);
    })
    .unwrap();
    let json = std::fs::read_to_string(folder.join("generated.json")).unwrap();
    (model, serde_json::from_str(&json).unwrap())
}

fn searched(model: &Model<Reference>, prompts: &[Vec<u32>], of: &Golden) -> Vec<Vec<Hypothesis>> {
    let (dev, beams) = (Reference::new(), of.beams());
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut decoder = Decoder::new(&dev, model, &lengths, beams.count, of.length);
    let ended = |new: &[u32]| Ok(new.last() == Some(&of.end));
    search(&mut decoder, prompts.to_vec(), beams, of.length, ended).unwrap()
}

#[test]
fn greedy_and_beams_are_those_of_transformers() {
    let (model, cases) = golden();
    assert!(cases.len() > 100);
    let dev = Reference::new();
    for (i, case) in cases.iter().enumerate() {
        let one = std::slice::from_ref(&case.prompt);
        let Some(score) = case.score else {
            let mut decoder = Decoder::new(&dev, &model, &[case.prompt.len()], 1, case.length);
            let ends = |_, new: &[u32]| Ok(new.last() == Some(&case.end));
            let settings = (0, case.length, &GREEDY);
            let got = draw(&mut decoder, one.to_vec(), settings, ends).unwrap();
            assert_eq!(got[0], case.ids, "case {i}");
            continue;
        };
        let found = &searched(&model, one, case)[0];
        assert_eq!(found[0].ids, case.ids, "case {i}");
        // transformers adds log-probabilities up in f32.
        let error = (found[0].score - score).abs();
        assert!(error <= 1e-5 * (1.0 + score.abs()), "case {i}: {} {score}", found[0].score);
        assert!(found.is_sorted_by(|a, b| a.score >= b.score) && found.len() <= case.beams);
    }
}

#[test]
fn searches_together_are_those_of_one_by_one() {
    let (model, cases) = golden();
    let mut prompts: Vec<Vec<u32>> = cases.iter().map(|case| case.prompt.clone()).collect();
    prompts.dedup();
    for case in cases.iter().filter(|case| case.score.is_some()).step_by(7) {
        let together = searched(&model, &prompts, case);
        for (prompt, together) in prompts.iter().zip(together) {
            let alone = searched(&model, std::slice::from_ref(prompt), case).remove(0);
            assert_eq!(alone.len(), together.len());
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.ids, together.ids);
                assert!((alone.score - together.score).abs() < 1e-12);
            }
        }
    }
}

/// With one beam a search is greedy, and with as many as there are texts it finds the best of all.
#[test]
fn a_search_of_all_texts_finds_the_likeliest() {
    let dev = Reference::new();
    let arch = Arch { vocab: 5, ..support::shrunk("gpt2") };
    let model = model(&arch);
    let (prompt, length) = (vec![3, 1], 3);
    let all = |count| {
        let beams = Beams { count, length_penalty: 0.0, early_stopping: false };
        let mut decoder = Decoder::new(&dev, &model, &[prompt.len()], count, length);
        search(&mut decoder, vec![prompt.clone()], beams, length, |_| Ok(false)).unwrap().remove(0)
    };
    assert_eq!(all(1)[0].ids, greedily(&model, &prompt, length));
    let found = all(125);
    assert_eq!(found.len(), 125);
    let total: f64 = found.iter().map(|text| text.score.exp()).sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
    // Each score is that of its tokens.
    for text in [&found[0], &found[60], &found[124]] {
        let mut ids = prompt.clone();
        let mut score = 0.0;
        for &id in &text.ids {
            let logits = anew(&model, std::slice::from_ref(&ids));
            let total: f64 = logits.iter().map(|z| z.exp()).sum();
            score += logits[id as usize] - total.ln();
            ids.push(id);
        }
        assert!((score - text.score).abs() < 1e-12, "{score} {}", text.score);
    }
}
