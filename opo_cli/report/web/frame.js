// What the pages share: text and colours of the charts, their layout, and redrawing them as the
// theme, the window or a print asks for it.
"use strict";
const frame = (() => {
  const isTouch = matchMedia("(pointer: coarse)").matches;

  const literal = (text) =>
    text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const theme = () => (matchMedia("print").matches ? "light" : document.documentElement.dataset.theme);
  const isNumber = (value) => value !== null && value !== undefined;
  const shown = (value) => (isNumber(value) ? String(Number(value.toPrecision(4))) : "–");

  // A closed outline: along the upper edge, and back along the lower.
  function outline(x, low, high) {
    const there = x.map((_, i) => i).filter((i) => isNumber(low[i]) && isNumber(high[i]));
    const back = [...there].reverse();
    return [[...there, ...back].map((i) => x[i]),
      [...there.map((i) => high[i]), ...back.map((i) => low[i])]];
  }

  const faded = (colour, alpha) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };

  function layoutOf(div, xTitle, yTitle) {
    const axis = { gridcolor: css("--grid"), zeroline: false, linecolor: css("--line"),
      tickcolor: css("--line"), ticks: "outside", ticklen: 4, automargin: true,
      fixedrange: isTouch, title: { standoff: 8, font: { size: 12 } } };
    return {
      autosize: true, margin: { l: 40, r: 12, t: 12, b: 36 }, showlegend: false, dragmode: "zoom",
      paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--soft") },
      hovermode: "closest",
      hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--line"), align: "left",
        font: { color: css("--ink"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
      xaxis: { ...axis, title: { ...axis.title, text: xTitle } },
      yaxis: { ...axis, exponentformat: "power", title: { ...axis.title, text: yTitle } },
      width: div.clientWidth, height: div.clientHeight,
    };
  }

  const config = { displaylogo: false, responsive: false, doubleClick: "reset",
    displayModeBar: isTouch ? false : "hover",
    modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  // Draws every `.chart` by `draw(div, theme)` now and whenever it has to; returns how to redraw.
  function start(draw) {
    const divs = [...document.querySelectorAll(".chart")];

    // One chart per frame, so that the page answers meanwhile; the newest call wins.
    let turn = 0;
    async function drawAll() {
      const mine = ++turn;
      const name = theme();
      for (const div of divs) {
        if (mine !== turn) return;
        await draw(div, name);
        await new Promise(requestAnimationFrame);
      }
      document.documentElement.dataset.drawn = String(turn);
    }

    // A print is laid out at once: no frame to wait for.
    function drawNow() {
      turn++;
      const name = theme();
      divs.forEach((div) => draw(div, name));
    }

    const button = document.getElementById("theme");
    const label = () => {
      const other = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
      button.textContent = other;
      button.setAttribute("aria-label", `${other} colours`);
    };
    let isChosen = false;
    const change = (name) => {
      setTheme(name);
      label();
      drawAll();
    };
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      isChosen = true;
      change(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    });
    dark.addEventListener("change", () => isChosen || change(dark.matches ? "dark" : "light"));

    let widths = divs.map((div) => div.clientWidth).join();
    new ResizeObserver(() => {
      const now = divs.map((div) => div.clientWidth).join();
      if (now === widths) return;
      widths = now;
      drawAll();
    }).observe(document.body);

    let closed = [];
    const unfold = () => {
      closed = [...closed, ...document.querySelectorAll("details:not([open])")];
      closed.forEach((details) => (details.open = true));
      drawNow();
    };
    const fold = () => {
      closed.forEach((details) => (details.open = false));
      closed = [];
      drawAll();
    };
    addEventListener("beforeprint", unfold);
    addEventListener("afterprint", fold);
    matchMedia("print").addEventListener("change", ({ matches }) => (matches ? unfold() : fold()));
    drawAll();
    return drawAll;
  }

  return { literal, css, isNumber, shown, outline, faded, layoutOf, config, start };
})();
