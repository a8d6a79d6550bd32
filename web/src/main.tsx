import "@fontsource-variable/inter/wght.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/page.css";
import "./styles/queue.css";
import "./styles/viewer.css";
import "./styles/decision.css";
import "./styles/dialogs.css";

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
