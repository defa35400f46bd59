//! `explain`: pages that need nothing else.

use crate::*;

fn page(lab: &Lab, args: &[&str]) -> (String, String) {
    let (said, _) = succeeds(lab.program(&["explain"]).args(args).args(["--out", "page.html"]));
    (said, fs::read_to_string(lab.path("page.html")).unwrap())
}

#[test]
fn a_page_tells_outputs_tokens_and_maps() {
    let lab = Lab::new();
    let (masked, causal) = (masked(), causal());
    let (said, html) = page(&lab, &["--model", &masked, "On day[MASK] the <whale> & sea"]);
    assert!(said.starts_with("Masked token: ") && said.contains("wrote page.html"), "{said}");
    assert!(html.contains("default-src 'none'") && !html.contains("<script"));
    // Two layers of two heads, a row a token.
    let tokens = html.matches("class='token-box").count();
    assert!(tokens > 6 && html.matches("<svg class='map'").count() == 4, "{tokens}");
    assert_eq!(html.matches("looks at").count(), 4 * tokens);
    assert!(!html.contains("<whale>"), "a token is text, not markup");
    let (said, html) = page(&lab, &["--model", &causal, "--of", "a", "On day"]);
    assert!(said.starts_with("Next token: \"a\" (0."), "{said}");
    assert!(html.contains("gradient × input of log p of a"));

    let rows: String =
        (0..40).map(|i| format!("{},{}\n", ["fine sea", "dull mast"][i % 2], i % 2)).collect();
    lab.write("rows.csv", format!("text,label\n{rows}"));
    let finetune = ["finetune", "--task", "classify", "--train", "rows.csv", "--epochs", "1"];
    succeeds(lab.program(&finetune).args(["--model", &masked, "--out", "tuned"]));
    let (said, html) = page(&lab, &["--model", "tuned", "--of", "1", "a fine sea"]);
    assert!(said.starts_with("Class: \"1\" (0."), "{said}");
    assert!(html.contains("<li class='right'><span class='token'>1</span>"));
}

#[test]
fn the_label_of_a_word_and_an_answer_have_a_page_too() {
    let lab = Lab::new();
    let masked = masked();
    let finetune = |task: &str, row: &str| {
        lab.write("rows.jsonl", format!("{row}\n").repeat(20));
        let finetune = ["finetune", "--task", task, "--train", "rows.jsonl", "--dev", "rows.jsonl"];
        let more = ["--epochs", "1", "--model", &masked, "--out", task];
        succeeds(lab.program(&finetune).args(more));
    };
    finetune("tokens", r#"{"tokens": ["fine", "whale"], "labels": ["O", "B-FISH"]}"#);
    let (said, html) = page(&lab, &["--model", "tokens", "a whale, a sea", "--word", "sea"]);
    assert!(said.starts_with("Label of \"sea\": \""), "{said}");
    assert!(html.contains("B-FISH") && html.contains("gradient × input of log p of "));
    let words = ["explain", "--model", "tokens", "a whale, a sea"];
    let named = "one of these with --word: a whale , a sea";
    refuses(&mut lab.program(&words), &["labels words", named]);
    refuses(lab.program(&words).args(["--word", "ship"]), &[named]);
    refuses(lab.program(&words).args(["--word", "sea", "--of", "ship"]), &["--of", "B-FISH"]);

    finetune("answer", r#"{"question": "who?", "context": "the whale is", "answer": "whale"}"#);
    let asked = ["--model", "answer", "who?", "--pair", "a whale at sea"];
    let (said, html) = page(&lab, &asked);
    assert!(said.starts_with("Answer: \"") && html.contains("<li class='right'>"), "{said}");
    for (of, answer) in [("at sea", "at sea"), ("", "(no answer)")] {
        let (said, html) = page(&lab, &[&asked[..], &["--of", of]].concat());
        assert!(said.starts_with(&format!("Answer: {answer:?} (0.")), "{said}");
        assert_eq!(html.matches("<li class='right'>").count(), 1);
        assert!(html.contains(&format!("log p of {answer}")));
    }
    let explain = |more: &[&str]| {
        let mut explain = lab.program(&["explain", "--model", "answer", "who?"]);
        explain.args(more);
        explain
    };
    refuses(&mut explain(&[]), &["answers questions", "--pair"]);
    refuses(&mut explain(&["--pair", "a sea", "--of", "ship"]), &["\"ship\"", "the context"]);
    refuses(&mut explain(&["--pair", &"sea ".repeat(99)]), &["longer than 96 tokens"]);
}

#[test]
fn what_explain_refuses() {
    let lab = Lab::new();
    let (masked, causal) = (masked(), causal());
    let refused = |args: &[&str], parts: &[&str]| {
        refuses(lab.program(&["explain", "--model"]).args(args), parts);
    };
    refused(&[&masked, "no gap"], &["no [MASK]", "put it"]);
    refused(&[&masked, "a[MASK]", "--of", "whales and seas"], &["--of", "tokens: give one"]);
    refused(&[&masked, "a[MASK]", "--longest", "3"], &["longer than 3 tokens", "--longest"]);
    refused(&[&masked, "a[MASK]", "--pair", "b"], &["--pair", "finetuned on pairs"]);
    refused(&[&causal, &"whale ".repeat(90)], &["longer than 96 tokens"]);
    let long = "whale ".repeat(90);
    refused(&[&causal, &long, "--longest", "500"], &["or than the model takes"]);
    refused(&[&causal, ""], &["there is no text"]);
    refused(&[&masked, "a[MASK]", "--word", "a"], &["--word", "label words"]);
    refused(&[&causal, "a", "--out", "no/where.html"], &["no/where.html", "cannot be written"]);
    let mine = "By `warpwright explain`:";
    let foreign = lab.write("page.html", mine);
    let parts = ["page.html exists", "nothing that this command wrote: name another"];
    refused(&["nowhere", "a", "--out", "page.html"], &parts);
    assert_eq!(fs::read_to_string(foreign).unwrap(), mine);
    refused(&["nowhere", "a"], &["does not exist"]);
    assert!(!lab.path("explain.html").exists());
}
