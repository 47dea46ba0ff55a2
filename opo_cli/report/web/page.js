// Draws the charts from the block of JSON, and keeps them in step with the controls. Text of the
// data goes to plotly through `literal` only, as plotly reads some tags in it.
"use strict";
(() => {
  const { literal, isNumber, shown, outline, faded } = frame;
  const data = JSON.parse(document.getElementById("data").textContent);
  const state = { axis: "step", seeds: false, smooth: 1, off: new Set(), without: new Set(), theme: null };
  const UNIFIED = 6; // Arms: with more of them, one box with all values would hide the chart.
  const FEW = 16; // Points: so few are marked one by one.
  const BAND = 0.17 * Math.min(1, 4 / data.arms.length); // Bands of many arms lie over each other.

  // Trailing mean over the last measured values; a gap stays one.
  function smoothed(values) {
    if (state.smooth === 1 || !values) return values;
    const last = [];
    return values.map((value) => {
      if (!isNumber(value)) return null;
      last.push(value);
      if (last.length > state.smooth) last.shift();
      return last.reduce((sum, each) => sum + each, 0) / last.length;
    });
  }

  const xOf = (line) => data.xs[line.x[state.axis]];

  // Lines of several runs as one trace, with gaps between them.
  function joined(runs, xFrom, yFrom, textFrom) {
    const trace = { x: [], y: [], hovertext: [] };
    for (const run of runs) {
      const x = xFrom(run);
      const y = yFrom(run);
      x.forEach((value, i) => {
        if (!isNumber(y[i]) || !isNumber(value)) return; // Metrics measured now and then: no gaps.
        trace.x.push(value);
        trace.y.push(y[i]);
        trace.hovertext.push(textFrom(run, i, y[i]));
      });
      trace.x.push(null);
      trace.y.push(null);
      trace.hovertext.push("");
    }
    return trace;
  }

  function tracesOf(chart) {
    const bands = [];
    const thin = [];
    const means = [];
    chart.arms.forEach((lines, place) => {
      const arm = data.arms[place];
      const colour = arm[state.theme];
      const visible = !state.off.has(place);
      const common = { type: "scatter", showlegend: false, visible };
      const x = xOf(lines);
      const [mean, low, high] = [lines.mean, lines.low, lines.high].map(smoothed);
      if (low) {
        const [px, py] = outline(x, low, high);
        bands.push({ ...common, meta: { place, kind: "band" }, x: px, y: py, mode: "lines",
          line: { width: 0 }, fill: "toself", fillcolor: faded(colour, BAND), hoverinfo: "skip" });
      }
      const told = (run, i, y) =>
        `${literal(run.name)}<br>${state.axis} ${shown(xOf(run)[i])}: <b>${shown(y)}</b>`;
      thin.push({ ...common, meta: { place, kind: "seeds" }, visible: visible && state.seeds,
        ...joined(lines.runs.filter((run) => !state.without.has(run.seed)), xOf, (run) => smoothed(run.y), told), mode: "lines",
        line: { width: 1, color: faded(colour, 0.55), dash: arm.dash }, hoverinfo: "text" });
      const text = mean.map((value, i) => {
        const band = low && isNumber(low[i]) ? ` [${shown(low[i])}, ${shown(high[i])}]` : "";
        const where = isUnified() ? "" : `<br>${state.axis} ${shown(x[i])}`;
        return `${literal(arm.label)}${where}: <b>${shown(value)}</b>${band}`;
      });
      const isFew = mean.filter(isNumber).length <= FEW;
      means.push({ ...common, meta: { place, kind: "mean" }, x, y: mean, hovertext: text,
        hoverinfo: isUnified() ? "x+text" : "text", mode: isFew ? "lines+markers" : "lines", connectgaps: true,
        line: { width: 2.25, color: colour, dash: arm.dash },
        marker: { size: 6, symbol: arm.symbol, color: colour } });
    });
    return [...bands, ...thin, ...means];
  }

  const isUnified = () => !state.seeds && data.arms.length <= UNIFIED;

  // Mean length across, mean reward up: a point per step and run, a line per arm.
  function scatterTraces() {
    const [across, up] = data.scatter.map((place) => data.charts[place]);
    const points = [];
    const paths = [];
    data.arms.forEach((arm, place) => {
      const [lengths, rewards] = [across.arms[place], up.arms[place]];
      const colour = arm[state.theme];
      const common = { type: "scatter", showlegend: false, visible: !state.off.has(place) };
      const steps = (line) => data.xs[line.x.step];
      const byName = new Map(lengths.runs.map((run) => [run.name, smoothed(run.y)]));
      const runs = rewards.runs.filter((run) => byName.has(run.name));
      const told = (run, i, y) => `${literal(run.name)}, step ${shown(steps(run)[i])}<br>` +
        `length ${shown(byName.get(run.name)[i])}, reward <b>${shown(y)}</b>`;
      points.push({ ...common, meta: { place, kind: "points" }, mode: "markers", hoverinfo: "text",
        ...joined(runs, (run) => byName.get(run.name), (run) => smoothed(run.y), told),
        marker: { size: 5, symbol: arm.symbol, color: colour, opacity: 0.4 } });
      const [x, y] = [smoothed(lengths.mean), smoothed(rewards.mean)];
      const known = x.map((_, i) => i).filter((i) => isNumber(x[i]) && isNumber(y[i]));
      const ends = known.map((_, i) => (i === 0 || i === known.length - 1 ? 11 : 0));
      const symbols = known.map((_, i) => (i === 0 ? "circle-open" : "square"));
      paths.push({ ...common, meta: { place, kind: "path" }, mode: "lines+markers",
        x: known.map((i) => x[i]), y: known.map((i) => y[i]), hoverinfo: "text",
        hovertext: known.map((i) => `${literal(arm.label)}, mean, step ${shown(steps(lengths)[i])}` +
          `<br>length ${shown(x[i])}, reward <b>${shown(y[i])}</b>`),
        line: { width: 2, color: colour, dash: arm.dash },
        marker: { size: ends, symbol: symbols, color: colour, line: { width: 2, color: colour } } });
    });
    return [...points, ...paths];
  }

  function layoutOf(div, xTitle, yTitle) {
    const layout = frame.layoutOf(div, xTitle, yTitle);
    if (div.dataset.chart !== undefined && isUnified()) layout.hovermode = "x unified";
    Object.assign(layout.xaxis, { spikethickness: 1, spikecolor: frame.css("--soft"),
      spikedash: "solid", unifiedhovertitle: { text: `${state.axis} %{x}` } });
    return layout;
  }

  function draw(div, theme) {
    state.theme = theme;
    const isScatter = div.dataset.scatter !== undefined;
    const [xTitle, yTitle] = isScatter
      ? data.scatter.map((place) => literal(data.charts[place].title))
      : [data.axes[state.axis], ""];
    const traces = isScatter ? scatterTraces() : tracesOf(data.charts[div.dataset.chart]);
    return Plotly.react(div, traces, layoutOf(div, xTitle, yTitle), frame.config);
  }

  function listen(drawAll) {
    const panel = document.getElementById("panel");
    panel.hidden = false;
    panel.addEventListener("change", ({ target }) => {
      if (target.dataset.arm !== undefined) {
        state.off[target.checked ? "delete" : "add"](Number(target.dataset.arm));
      } else if (target.dataset.seed !== undefined) {
        state.without[target.checked ? "delete" : "add"](Number(target.dataset.seed));
      } else if (target.id === "seeds") {
        state.seeds = target.checked;
        for (const row of panel.querySelectorAll(".seeds")) row.hidden = !target.checked;
      }
      else if (target.name === "axis") state.axis = target.value;
      else if (target.name === "smooth") state.smooth = Number(target.value);
      drawAll();
    });

    panel.addEventListener("click", ({ target }) => {
      const isOn = target.dataset.all === "on";
      if (target.dataset.all === undefined) return;
      for (const box of panel.querySelectorAll("[data-arm]")) {
        box.checked = isOn;
        state.off[isOn ? "delete" : "add"](Number(box.dataset.arm));
      }
      drawAll();
    });
  }

  listen(frame.start(draw));
})();
