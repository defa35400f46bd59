//! The choice of a cut, and the table of what it should bring.

use super::*;

const TOKENS: usize = 65_536;

fn product(op: Op, m: usize, n: usize, k: usize) -> Product {
    Product::of(Key { op, m, n, k }, true)
}

#[test]
fn tiles_fit_a_block() {
    for tile in &TILES {
        assert!(tile.shared() <= 227 * 1024, "{tile:?}: {} bytes", tile.shared());
    }
}

#[test]
fn short_sums_take_turns_and_weight_gradients_fill_whole_waves() {
    let forward = choose(&product(Op::LinearAct, TOKENS, 3072, 768), 132);
    assert_eq!(TILES[forward.tile].form, Form::PingPong);
    assert_eq!((forward.cluster, forward.splits, forward.blocks), (2, 1, 132));
    let rotated = choose(&product(Op::LinearRope, TOKENS, 2304, 768), 132);
    assert_eq!(TILES[rotated.tile].form, Form::PingPong);
    for (n_out, n_in) in [(768, 768), (2304, 768), (3072, 768), (768, 3072), (1024, 1024)] {
        let cut = choose(&product(Op::LinearDw, n_out, n_in, TOKENS), 132);
        let Schedule { rows, columns, splits, .. } = cut.schedule;
        let items = (rows * columns * splits) as usize * cut.cluster;
        let waves = items.div_ceil(132);
        assert!(items as f64 > 0.93 * (waves * 132) as f64, "{cut:?} leaves many idle");
    }
}

#[test]
fn shares_cover_k_and_none_is_empty() {
    for k in [1, 64, 65, 200, 4096, TOKENS] {
        for splits in 1..70 {
            let cut = Cut::new(0, 1, splits, &product(Op::LinearDw, 300, 300, k), 132);
            let (steps, share) = (cut.schedule.steps, cut.schedule.share);
            assert_eq!(steps as usize, k.div_ceil(STEP));
            let before = (cut.splits as i32 - 1) * share;
            assert!(before < steps && steps <= before + share, "{k} / {splits}: {cut:?}");
        }
    }
}

#[test]
fn blocks_are_whole_clusters_and_none_is_idle() {
    let cut = Cut::new(0, 2, 1, &product(Op::Linear, 200, 300, 64), 132);
    assert_eq!((cut.schedule.rows, cut.schedule.columns, cut.blocks), (1, 2, 4));
    let cut = Cut::new(2, 2, 1, &product(Op::Linear, TOKENS, 768, 768), 131);
    assert_eq!(cut.blocks, 130);
}

#[test]
fn widths_of_1600_take_the_tile_that_divides_them() {
    let tile = |p: &Product| TILES[choose(p, 132).tile].n;
    assert_eq!(tile(&product(Op::Linear, TOKENS, 1600, 1600)), 160);
    assert_eq!(tile(&product(Op::LinearDx, TOKENS, 1600, 6400)), 160);
    // It has no kernels with an activation.
    assert_ne!(tile(&product(Op::LinearAct, TOKENS, 1600, 1600)), 160);
    assert_ne!(tile(&product(Op::LinearGate, TOKENS, 3200, 1600)), 160);
}

/// The heads' of ALBERT and GPT-2 XL; a layer's has tiles enough.
#[test]
fn input_gradients_split_k_where_tiles_are_few_and_sums_long() {
    let splits = |m, n, k| choose(&product(Op::LinearDx, m, n, k), 132).splits;
    assert!(splits(5190, 128, 30_000) > 1);
    assert!(splits(8192, 1600, 50_304) > 1);
    for (n, k) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
        assert_eq!(splits(TOKENS, n, k), 1);
        assert_eq!(splits(9830, n, k), 1);
    }
}

#[test]
fn sums_in_any_order_cost_no_partial_results() {
    let time = |epilogue| {
        let p = Product { epilogue, ..product(Op::LinearDw, 768, 768, TOKENS) };
        seconds(&choose(&p, 132), &p)
    };
    assert!(time(Epilogue::Add) < time(Epilogue::Sum));
}

/// benches/results/products-predicted.md:
/// `cargo test --release --lib hopper::tests::predictions -- --ignored --nocapture`
#[test]
#[ignore = "prints a table"]
fn predictions() {
    println!(
        "| model | product | m × n × k | tile | stages | shared B | blocks × waves | k / \
              | GB | TFLOP | floor µs | predicted µs | floor / predicted |"
    );
    println!("|{}", "---|".repeat(13));
    // A chunk of rows of the head, by width and vocabulary.
    for (model, rows, n, vocab) in [
        ("BERT-base", 5190, 768, 30_528),
        ("BERT-large", 5190, 1024, 30_528),
        ("ALBERT-base", 5190, 128, 30_000),
        ("ModernBERT-large", 6554, 1024, 50_368),
        ("GPT-2 124M", 8192, 768, 50_304),
        ("GPT-2 1.5B", 8192, 1600, 50_304),
    ] {
        println!("| {model} | head dx {}", row(&product(Op::LinearDx, rows, n, vocab)));
    }
    // ModernBERT's own, base and large.
    for (model, c, inner) in [("d = 768", 768, 1152), ("d = 1024", 1024, 2624)] {
        for (what, p) in [
            ("qkv y, rotary", product(Op::LinearRope, TOKENS, 3 * c, c)),
            ("fc y, gate", product(Op::LinearGate, TOKENS, 2 * inner, c)),
            ("proj dx, gate", product(Op::LinearDxGate, TOKENS, inner, c)),
        ] {
            println!("| {model} | {what} {}", row(&p));
        }
    }
    for (model, c) in [("d = 768", 768), ("d = 1024", 1024), ("d = 1600", 1600)] {
        let layers = [("qkv", c, 3 * c), ("out", c, c), ("fc", c, 4 * c), ("proj", 4 * c, c)];
        for (layer, n_in, n_out) in layers {
            let forward = match layer {
                "fc" => ("y, act", product(Op::LinearAct, TOKENS, n_out, n_in)),
                _ => ("y", product(Op::Linear, TOKENS, n_out, n_in)),
            };
            let backward = match layer {
                "proj" => ("dx, act", product(Op::LinearAct, TOKENS, n_in, n_out)),
                _ => ("dx", product(Op::LinearDx, TOKENS, n_in, n_out)),
            };
            let dw = product(Op::LinearDw, n_out, n_in, TOKENS);
            for (what, p) in [
                forward,
                backward,
                ("dW, db", dw),
                ("dW, db, any order", Product::of(dw.key, false)),
            ] {
                println!("| {model} | {layer} {what} {}", row(&p));
            }
        }
    }
}

fn row(p: &Product) -> String {
    let cut = choose(p, 132);
    let tile = &TILES[cut.tile];
    let form = if tile.form == Form::PingPong { "ping" } else { "coop" };
    let Schedule { rows, columns, splits, .. } = cut.schedule;
    let items = (rows * columns * splits) as f64 * cut.cluster as f64;
    let [m, n, k] = [p.key.m, p.key.n, p.key.k].map(|extent| extent as f64);
    let (bytes, flops) = (2.0 * (m + n) * k + p.epilogue.bytes() * m * n, 2.0 * m * n * k);
    let floor = (flops / 790e12).max(bytes / chip::MEMORY);
    let time = seconds(&cut, p);
    let tile_words = format!("{form} {} × {}", tile.m, tile.n);
    let blocks = format!("{} × {:.2}", cut.blocks, items / cut.blocks as f64);
    let work = format!("{:.2} | {:.3}", bytes / 1e9, flops / 1e12);
    let times = format!("{:.0} | {:.0} | {:.2}", floor * 1e6, time * 1e6, floor / time);
    format!(
        "| {} × {} × {} | {tile_words} | {} | {} | {blocks} | {} | {work} | {times} |",
        p.key.m,
        p.key.n,
        p.key.k,
        tile.stages,
        tile.shared(),
        cut.splits
    )
}
