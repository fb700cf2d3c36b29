// Before the first paint, and therefore no module: a page must not flash in the theme that was not chosen.
(() => {
  const CHOICES = ["auto", "light", "dark"];
  const KEY = "jobwire.theme";
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is forbidden here: the choice holds for this page alone
    }
  };
  const apply = (choice) => {
    document.documentElement.dataset.theme = CHOICES.includes(choice) ? choice : "auto";
  };
  apply(stored());
  globalThis.jobwireTheme = {
    chosen: () => document.documentElement.dataset.theme,
    next() {
      const choice = CHOICES[(CHOICES.indexOf(this.chosen()) + 1) % CHOICES.length];
      apply(choice);
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // as above
      }
      dispatchEvent(new Event("themechange"));
      return choice;
    },
  };
})();
