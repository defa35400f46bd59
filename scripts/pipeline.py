#!/usr/bin/env python3
"""Draws kernels/pipeline.svg: what a block of product_hopper.cuh does over time, in both forms.

    scripts/pipeline.py

A small simulation by the kernel's rules, in units of one step of k on the tensor cores: a stage is
filled when it was freed, panels take LATENCY to come, one tile multiplies at a time in ping-pong,
and an epilogue takes EPILOGUE for one consumer alone with a tile. Times are not measured.
"""

from pathlib import Path

STAGES, STEPS, TILES = 4, 12, 3  # k = 768 is 12 steps of 64
LATENCY, EPILOGUE = 2.0, 8.0
SCALE, LANE, LEFT = 13.0, 26, 118
COLOURS = ["#4477aa", "#cc6644", "#559955"]
ROOT = Path(__file__).resolve().parent.parent


def block(ping_pong):
    """[(lane, begin, end, tile)] of one block."""
    done, freed, tensor = [], [0.0] * STAGES, 0.0
    consumer = [0.0, 0.0]  # when each is ready for its next tile
    step = 0
    for tile in range(TILES):
        own = tile % 2 if ping_pong else None
        ready = consumer[own] if ping_pong else max(consumer)
        begin = None
        for _ in range(STEPS):
            load = freed[step % STAGES]
            done.append((f"stage {step % STAGES}", load, load + LATENCY, tile))
            start = max(load + LATENCY, tensor, ready)
            begin = start if begin is None else begin
            tensor = start + 1
            # A stage is told free when the step after it has been issued.
            freed[step % STAGES] = tensor + 1
            done.append(("tensor cores", start, tensor, tile))
            step += 1
        if ping_pong:
            done.append((f"consumer {own}", begin, tensor, tile))
            consumer[own] = tensor + EPILOGUE
            done.append((f"consumer {own}", tensor, consumer[own], -1 - tile))
        else:
            for lane in (0, 1):
                done.append((f"consumer {lane}", begin, tensor, tile))
                consumer[lane] = tensor + EPILOGUE / 2
                done.append((f"consumer {lane}", tensor, consumer[lane], -1 - tile))
    return done


def draw(title, spans, top):
    lanes = [f"stage {i}" for i in range(STAGES)] + ["tensor cores", "consumer 0", "consumer 1"]
    out = [f'<text x="8" y="{top + 14}" font-weight="bold">{title}</text>']
    for i, lane in enumerate(lanes):
        y = top + 24 + i * LANE
        out.append(f'<text x="8" y="{y + 15}">{lane}</text>')
        for _, begin, end, tile in (span for span in spans if span[0] == lane):
            x, width = LEFT + begin * SCALE, (end - begin) * SCALE - 1
            colour = COLOURS[tile if tile >= 0 else -1 - tile]
            style = f'fill="{colour}"'
            if tile < 0:  # an epilogue
                style = f'fill="none" stroke="{colour}" stroke-width="2"'
            out.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="18" {style}/>')
            if lane.startswith("consumer") and width > 50:
                words = "multiplies" if tile >= 0 else "stores"
                ink = "#fff" if tile >= 0 else "#222"
                out.append(f'<text x="{x + 5:.1f}" y="{y + 15}" fill="{ink}">{words}</text>')
    return out, top + 24 + len(lanes) * LANE


def main():
    body, y = [], 8
    ends = []
    for title, ping_pong in [("cooperative: both consumers share each tile", False),
                             ("ping-pong: each makes every other tile", True)]:
        spans = block(ping_pong)
        ends.append(max(end for _, _, end, _ in spans))
        drawn, y = draw(title, spans, y)
        body += drawn
        y += 18
    body.append(f'<text x="8" y="{y + 4}">Time runs to the right; a colour is a tile. Stages are '
                'being filled by TMA; outlined, results go out. Drawn, not measured.</text>')
    width, height = LEFT + max(ends) * SCALE + 12, y + 16
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
            'font-family="sans-serif" font-size="12" fill="#222">')
    ground = f'<rect width="{width:.0f}" height="{height}" fill="#fff"/>'
    text = "\n".join([head, ground, *body, "</svg>", ""])
    (ROOT / "kernels/pipeline.svg").write_text(text)


if __name__ == "__main__":
    main()
