import "@fontsource-variable/inter/wght.css";
import "./style.css";

import { render } from "preact";

import { App } from "./App";
import { listen } from "./keys";
import { unsigned } from "./session";
import { follow } from "./worklist";

const page = document.getElementById("page");
if (page) {
  render(<App />, page);
  listen();
  follow();
  addEventListener("beforeunload", (event) => {
    if (unsigned()) event.preventDefault();
  });
}
