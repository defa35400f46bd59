//! How code reads here, as far as a test can say.

use std::fs;
use std::path::{Path, PathBuf};

use warpwright::config::{Config, Overrides};

/// The longest line, in characters.
const COLUMNS: usize = 100;
/// The longest Rust file, in lines.
const LINES: usize = 600;

/// Every file of these kinds that belongs to the repository.
fn files(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // What programs make: builds, runs, environments; and hidden folders.
            let made = ["target", "runs", "data", "venv", "shared"].contains(&name);
            if path.is_dir() && !name.starts_with('.') && !(made && folder == root) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}

/// Fails with everything that is wrong, not the first thing alone.
fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `path:line: what` for each line of `text` that `is` wrong.
fn lines(path: &Path, text: &str, is: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let numbered = text.lines().enumerate();
    numbered
        .filter_map(|(i, line)| Some(format!("{}:{}: {}", path.display(), i + 1, is(line)?)))
        .collect()
}

#[test]
fn lines_fit_the_columns() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["rs", "toml", "md"]) {
        let is_text = path.extension().is_some_and(|e| e == "md");
        wrong.extend(lines(&path, &text, |line| {
            // A row of a table cannot be broken, nor can a link.
            let free = is_text && (line.starts_with('|') || line.contains("://"));
            let columns = line.chars().count();
            (columns > COLUMNS && !free).then(|| format!("{columns} columns"))
        }));
    }
    report(wrong);
}

#[test]
fn files_are_short_and_open_with_why_they_exist() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["rs"]) {
        let lines = text.lines().count();
        if lines > LINES {
            wrong.push(format!("{}: {lines} lines: divide it", path.display()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: say in a first //! line what it is for", path.display()));
        }
    }
    report(wrong);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["rs"]) {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let word = |w: &str| w == "unsafe" || w.ends_with("(unsafe");
            // The type of a function is no use of one.
            let code = code.replace("unsafe extern \"C\" fn(", "");
            // An implementation's promise is its trait's.
            let promised = ["launch", "record", "revise", "replay"];
            let promised = promised.map(|name| format!("    unsafe fn {name}("));
            let code = promised.iter().fold(code, |code, promise| code.replace(promise, ""));
            if !code.split_whitespace().any(word) || path.ends_with("tests/tidy.rs") {
                continue;
            }
            // The comment above, past attributes and the rest of the same statement.
            let above = &lines[i.saturating_sub(8)..i];
            let near = &lines[i.saturating_sub(3)..i];
            let said = near.iter().any(|l| l.trim_start().starts_with("// SAFETY: "))
                || above.iter().rev().take_while(|l| l.trim_start().starts_with("//")).any(|l| {
                    let l = l.trim_start();
                    l.starts_with("// SAFETY: ") || l.starts_with("/// # Safety")
                });
            if !said {
                wrong.push(format!("{}:{}: no // SAFETY: above", path.display(), i + 1));
            }
        }
    }
    report(wrong);
}

#[test]
fn nothing_is_left_undone_and_the_driver_stays_in_its_place() {
    let mut wrong = Vec::new();
    // In two halves, so that this file does not name them.
    let left = [["to", "do!("], ["unimple", "mented!("], ["db", "g!("]].map(|h| h.concat());
    let driver = ["cud", "arc"].concat();
    for (path, text) in files(&["rs"]) {
        wrong.extend(lines(&path, &text, |line| {
            let at = left.iter().find(|what| line.contains(*what))?;
            Some(format!("{at}) is left"))
        }));
        if text.contains(&driver) && !path.starts_with("src/device/gpu") {
            wrong.push(format!("{}: only src/device/gpu names {driver}", path.display()));
        }
    }
    report(wrong);
}

#[test]
fn every_recipe_resolves() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut count = 0;
    for entry in fs::read_dir(recipes).unwrap() {
        let recipe = entry.unwrap().path();
        if recipe.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = recipe.display().to_string();
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.starts_with("# "), "{name} does not open with what it is for");
        let overrides = Overrides { recipe: Some(recipe), ..Overrides::default() };
        let config = Config::resolve(&overrides).unwrap_or_else(|e| panic!("{name}: {e}"));
        config.arch(None).unwrap_or_else(|e| panic!("{name}: {e}"));
        // What the run directory keeps reads back as the same.
        let kept: toml::Table = config.to_toml().parse().unwrap();
        assert_eq!(kept.try_into::<Config>().unwrap(), config, "{name}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_demo_recipes_spell_out_the_defaults() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for objective in ["masked", "causal"] {
        let recipe = Some(recipes.join(format!("demo-{objective}.toml")));
        let spelt = Config::resolve(&Overrides { recipe, ..Overrides::default() }).unwrap();
        let objective = Some(objective.into());
        let unspelt = Config::resolve(&Overrides { objective, ..Overrides::default() }).unwrap();
        assert_eq!(spelt, unspelt);
    }
}
