// Draws the lab's two charts from the block of JSON. Text goes to plotly through `literal` only.
"use strict";
(() => {
  const { literal, isNumber, shown } = frame;
  const data = JSON.parse(document.getElementById("data").textContent);
  const NEAR = 0.12; // Of the least gap between policies: arms stand beside each other.
  const MOST_TICKS = 9;
  const places = data.steps || data.policies.map((_, i) => i);
  const gap = Math.min(...places.slice(1).map((at, i) => at - places[i]));

  // Whole labels on a logarithmic axis, where plotly's own show one digit of "50" and of ".5".
  function ticks(low, high) {
    const decades = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) decades.push(k);
    const finest = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]].map((steps) =>
      decades.flatMap((k) => steps.map((step) => Number(`${step}e${k}`)))
        .filter((tick) => tick >= low && tick <= high));
    return finest.filter((found, i) => i === 0 || found.length <= MOST_TICKS).at(-1);
  }

  const label = (value) => {
    if (value >= 0.001 && value < 1e4) return String(value);
    const [digit, power] = value.toExponential().split("e");
    return `${digit === "1" ? "" : `${digit}·`}10<sup>${Number(power)}</sup>`;
  };

  function logAxis(axis, low, high) {
    const margin = (high / low) ** 0.04;
    const range = [low / margin, high * margin];
    const tickvals = ticks(...range);
    Object.assign(axis, { type: "log", range: range.map(Math.log10), tickmode: "array", tickvals,
      ticktext: tickvals.map(label) });
  }

  const bounds = (values) => [Math.min(...values), Math.max(...values)];

  // Right and wrong responses as two clouds.
  function pointTraces(theme) {
    return [1, 0].map((isRight, place) => {
      const points = data.points.filter((point) => point[2] === isRight);
      const name = isRight ? "right" : "wrong";
      const style = data.styles[place];
      return { type: "scatter", mode: "markers", name,
        meta: { kind: name }, x: points.map((point) => point[0]), y: points.map((point) => point[1]),
        hoverinfo: "text", hovertext: points.map(([length, norm]) =>
          `${name}<br>length ${shown(length)}<br>squared norm <b>${shown(norm)}</b>`),
        marker: { size: 6, opacity: 0.5, color: style[theme], symbol: isRight ? "circle" : "x" } };
    });
  }

  function alongTraces(theme) {
    const middle = (data.arms.length - 1) / 2;
    return data.arms.map((arm, place) => {
      const style = data.styles[place];
      const known = arm.value.map((_, i) => i).filter((i) => isNumber(arm.value[i]));
      const pick = (values) => known.map((i) => values[i]);
      const value = pick(arm.value);
      return { type: "scatter", mode: "lines+markers", name: literal(arm.label), meta: { kind: "arm" },
        x: known.map((i) => places[i] + (gap * NEAR * (place - middle)) / Math.max(middle, 1)),
        y: value,
        error_y: { type: "data", symmetric: false, thickness: 1, width: 2,
          array: pick(arm.high).map((high, i) => high - value[i]),
          arrayminus: pick(arm.low).map((low, i) => value[i] - low) },
        hoverinfo: "text", hovertext: known.map((i) =>
          `${literal(arm.label)}, ${literal(data.policies[i])}<br><b>${shown(arm.value[i])}</b> ` +
          `[${shown(arm.low[i])}, ${shown(arm.high[i])}]`),
        line: { width: 2, color: style[theme], dash: style.dash },
        marker: { size: 6, color: style[theme], symbol: style.symbol } };
    });
  }

  function draw(div, theme) {
    const isAlong = div.dataset.along !== undefined;
    const titles = isAlong ? [data.steps ? "step" : "policy", "noise relative to rloo"]
      : ["length, loss tokens", "squared norm of the gradient"];
    const layout = frame.layoutOf(div, ...titles);
    if (isAlong) {
      const ends = data.arms.flatMap((arm) => [...arm.low, ...arm.high]).filter(isNumber);
      const [low, high] = bounds([1, ...ends]);
      logAxis(layout.yaxis, Math.max(low, 1 / data.widest), Math.min(high, data.widest));
      if (!data.steps) Object.assign(layout.xaxis, { tickmode: "array", tickvals: places,
        ticktext: data.policies.map(literal) });
      layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1,
        line: { color: frame.css("--soft"), width: 1 } }];
    } else if (data.points.length) {
      [layout.xaxis, layout.yaxis].forEach((axis, i) =>
        logAxis(axis, ...bounds(data.points.map((point) => point[i]))));
    }
    return Plotly.react(div, isAlong ? alongTraces(theme) : pointTraces(theme), layout, frame.config);
  }

  frame.start(draw);
})();
