// In the head, so that no page flashes white: the theme of the system, until the button is pressed.
const dark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = (name) => {
  document.documentElement.dataset.theme = name;
};
setTheme(dark.matches ? "dark" : "light");
