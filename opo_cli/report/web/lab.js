// Draws the lab's two charts from the block of JSON. Text goes to plotly through `literal` only.
"use strict";
(() => {
  const { literal, isNumber, shown } = frame;
  const data = JSON.parse(document.getElementById("data").textContent);
  const NEAR = 0.12; // Of a step between policies: arms stand beside each other, not on each other.

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
        x: known.map((i) => i + (NEAR * (place - middle)) / Math.max(middle, 1)), y: value,
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
    const titles = isAlong ? ["policy", "noise relative to rloo"]
      : ["length, loss tokens", "squared norm of the gradient"];
    const layout = frame.layoutOf(div, ...titles);
    layout.yaxis.type = "log";
    if (isAlong) {
      Object.assign(layout.xaxis, { tickmode: "array", tickvals: data.policies.map((_, i) => i),
        ticktext: data.policies.map(literal) });
      layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1,
        line: { color: frame.css("--soft"), width: 1 } }];
    } else layout.xaxis.type = "log";
    return Plotly.react(div, isAlong ? alongTraces(theme) : pointTraces(theme), layout, frame.config);
  }

  frame.start(draw);
})();
