#!/usr/bin/env python3
"""Draws what blocks do over time: kernels/pipeline.svg, of product_hopper.cuh in both forms, and
kernels/attention.svg, of attention_hopper.cu and attention_hopper_backward.cu.

    scripts/pipeline.py

Small simulations by the kernels' rules. What works alone (the tensor cores, the unit that makes
exponentials) takes one thing at a time, in the order asked. Times are assumptions, not measured.
"""

from pathlib import Path

LANE, LEFT, WIDTH = 26, 128, 1000
COLOURS = ["#4477aa", "#cc6644", "#559955"]
ROOT = Path(__file__).resolve().parent.parent


class Chart:
    """Lanes of spans; a span has a colour, and is filled or outlined."""

    def __init__(self, title, lanes):
        self.title, self.lanes, self.spans, self.free = title, lanes, [], {}

    def span(self, lane, begin, end, colour, word="", outlined=False):
        self.spans.append((lane, begin, end, colour, word, outlined))
        return end

    def work(self, lane, ready, length, colour, word=""):
        """The next free time of a lane that does one thing at a time: (begin, end)."""
        begin = max(ready, self.free.get(lane, 0.0))
        self.free[lane] = begin + length
        return begin, self.span(lane, begin, begin + length, colour, word)

    def end(self):
        return max(end for _, _, end, *_ in self.spans)

    def draw(self, top, scale):
        out = [f'<text x="8" y="{top + 14}" font-weight="bold">{self.title}</text>']
        for i, lane in enumerate(self.lanes):
            y = top + 24 + i * LANE
            out.append(f'<text x="8" y="{y + 15}">{lane}</text>')
            for _, begin, end, colour, word, outlined in (s for s in self.spans if s[0] == lane):
                x, width = LEFT + begin * scale, (end - begin) * scale - 1
                style = f'fill="{COLOURS[colour]}"'
                if outlined:
                    style = f'fill="none" stroke="{COLOURS[colour]}" stroke-width="2"'
                out.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="18" '
                           f'{style}/>')
                if word and width > 7 * len(word):
                    ink = "#222" if outlined else "#fff"
                    out.append(f'<text x="{x + 3:.1f}" y="{y + 15}" fill="{ink}">{word}</text>')
        return out, top + 24 + len(self.lanes) * LANE


def product(ping_pong):
    """A block's tiles, in units of one step of k on the tensor cores: a stage is filled when it was
    freed, one tile multiplies at a time in ping-pong."""
    stages, steps, latency, epilogue = 4, 12, 2.0, 8.0  # k = 768 is 12 steps of 64
    title = ("ping-pong: each makes every other tile" if ping_pong
             else "cooperative: both consumers share each tile")
    lanes = [f"stage {i}" for i in range(stages)] + ["tensor cores", "consumer 0", "consumer 1"]
    chart, freed, consumer, step = Chart(title, lanes), [0.0] * stages, [0.0, 0.0], 0
    for tile in range(3):
        who = [tile % 2] if ping_pong else [0, 1]
        ready, begin = max(consumer[i] for i in who), None
        for _ in range(steps):
            stage, step = step % stages, step + 1
            there = chart.span(f"stage {stage}", freed[stage], freed[stage] + latency, tile)
            start, end = chart.work("tensor cores", max(there, ready), 1.0, tile)
            begin = start if begin is None else begin
            # A stage is told free when the step after it has been issued.
            freed[stage] = end + 1
        for i in who:
            chart.span(f"consumer {i}", begin, end, tile, "multiplies")
            consumer[i] = chart.span(f"consumer {i}", end, end + epilogue / len(who), tile,
                                     "stores", outlined=True)
    return chart


# Clocks of a warpgroup's 64 × 128 scores at D = 64: one product, and 64 exponentials a thread.
PRODUCT, EXPONENTIALS = 256.0, 512.0


def forward(tiles=4):
    """Two warpgroups: each asks for the next scores and for the sums over the last ones, by turns,
    and weighs scores meanwhile."""
    lanes = ["tensor cores", "exponentials", "warpgroup 0", "warpgroup 1"]
    chart = Chart("forward: blue and red are two warpgroups' tiles of 64 × 128", lanes)
    ready, turn = [0.0, 0.0], 0.0
    for tile in range(tiles + 1):
        for group in (0, 1):
            ask = max(ready[group], turn)
            turn = ask
            sums = ask
            if tile < tiles:
                _, scores = chart.work("tensor cores", ask, PRODUCT, group, "s")
            if tile > 0:
                _, sums = chart.work("tensor cores", ask, PRODUCT, group, "o")
            if tile == tiles:
                chart.span(f"warpgroup {group}", sums, sums + 300, group, "stores", outlined=True)
                continue
            # The maximum first; what else there is to do hides between exponentials.
            _, weighed = chart.work("exponentials", scores + 100, EXPONENTIALS, group, "exp2")
            chart.span(f"warpgroup {group}", scores, weighed + 60, group, "weighs")
            ready[group] = max(weighed + 60, sums)
    return chart


def backward(tiles=3):
    """Two warpgroups, which meet once a tile: all of ds makes dq."""
    weigh, hand_out, carry = 900.0, 150.0, 500.0
    lanes = ["tensor cores", "warpgroup 0", "warpgroup 1", "courier"]
    chart = Chart("backward: a colour is a tile of 128 queries", lanes)
    ready, taken = [0.0, 0.0], 0.0
    for tile in range(tiles):
        met = []
        for group in (0, 1):
            _, scores = chart.work("tensor cores", ready[group], PRODUCT, tile, "s")
            chart.work("tensor cores", ready[group], PRODUCT, tile, "dp")
            met.append(chart.span(f"warpgroup {group}", scores, scores + weigh, tile, "p, ds"))
        for group in (0, 1):
            chart.work("tensor cores", max(met), PRODUCT, tile, "dv")
            _, dq = chart.work("tensor cores", max(met), PRODUCT, tile, "dq")
            _, dk = chart.work("tensor cores", max(met), PRODUCT, tile, "dk")
            out = max(dq, taken)
            chart.span(f"warpgroup {group}", out, out + hand_out, tile, "dq", outlined=True)
            ready[group] = max(dk, out + hand_out)
        taken = chart.span("courier", out + hand_out, out + hand_out + carry, tile, "adds dq")
    return chart


def write(name, charts, note):
    body, y = [], 8
    scale = (WIDTH - LEFT - 12) / max(chart.end() for chart in charts)
    for chart in charts:
        drawn, y = chart.draw(y, scale)
        body += drawn
        y += 18
    body.append(f'<text x="8" y="{y + 4}">{note} Drawn, not measured.</text>')
    height = y + 16
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="12" fill="#222">')
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    text = "\n".join([head, ground, *body, "</svg>", ""])
    (ROOT / "kernels" / name).write_text(text)


def main():
    write("pipeline.svg", [product(False), product(True)],
          "Time runs to the right; a colour is a tile. Stages are being filled by TMA; outlined, "
          "results go out.")
    write("attention.svg", [forward(), backward()],
          "Time runs to the right; 256 clocks a product, 512 for exponentials.")


if __name__ == "__main__":
    main()
