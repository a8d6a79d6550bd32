import { useLayoutEffect, useRef } from "preact/hooks";

import { KEYS, type Key } from "../keys";
import { helpOpen, shortcuts } from "../state";

const GROUPS: readonly Key["group"][] = ["Queue", "Slices", "Findings", "Image", "Decision"];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    dialog.current?.showModal();
    return () => document.getElementById("viewport")?.focus();
  }, []);
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-labelledby="help-title"
      onClose={() => {
        helpOpen.value = false;
      }}
      onKeyDown={(event) => event.key === "?" && dialog.current?.close()}
    >
      <header>
        <h2 id="help-title">Keys</h2>
        <button type="button" onClick={() => dialog.current?.close()}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <div class="key-groups">
        {GROUPS.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {KEYS.filter((one) => one.group === group).map((one) => (
                <div key={one.shown}>
                  <dt>
                    <kbd>{one.shown}</kbd>
                  </dt>
                  <dd>{one.does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <section>
          <h3>Mouse</h3>
          <dl>
            <div><dt>wheel</dt><dd>slices</dd></div>
            <div><dt>drag</dt><dd>window, pan or zoom, as chosen</dd></div>
            <div><dt>middle drag</dt><dd>pan</dd></div>
            <div><dt>right drag</dt><dd>zoom</dd></div>
            <div><dt>strip</dt><dd>click or drag to a slice</dd></div>
          </dl>
        </section>
      </div>
      <label class="check">
        <input
          type="checkbox"
          checked={shortcuts.value}
          onChange={(event) => {
            shortcuts.value = event.currentTarget.checked;
          }}
        />
        Single letters and digits act as keys
      </label>
      <p class="dim">Not a medical device; for research and evaluation.</p>
    </dialog>
  );
}
