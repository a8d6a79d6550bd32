import { useLayoutEffect, useRef } from "preact/hooks";

import { verdictOf } from "../draft";
import { count, sentence } from "../format";
import { sign } from "../deciding";
import { busy, draft, item, signOpen } from "../state";

/** The last question before a decision that is final. */
export function Sign() {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    dialog.current?.showModal();
    return () => document.getElementById("viewport")?.focus();
  }, []);
  const verdicts = Object.values(draft.value.findings);
  const of = (verdict: string) => verdicts.filter((one) => one.verdict === verdict).length;
  return (
    <dialog
      ref={dialog}
      class="sign"
      aria-labelledby="sign-title"
      onClose={() => {
        signOpen.value = false;
      }}
    >
      <h2 id="sign-title">{draft.value.reason === null ? "Sign off" : "Sign the correction"} as {verdictOf(draft.value)}?</h2>
      <p>{sentence(item.value?.summary ?? "")}</p>
      <ul class="sum">
        <li>{count(of("confirmed"), "finding")} accepted</li>
        <li>{of("rejected")} rejected</li>
        <li>{of("changed")} changed</li>
        <li>{draft.value.additions.length} added</li>
      </ul>
      {draft.value.comment && <p class="said">{draft.value.comment}</p>}
      {draft.value.reason && <p class="said">{draft.value.reason}</p>}
      <p class="dim">
        {draft.value.reason === null
          ? "A decision is final. A correction later is an entry of its own."
          : "What was signed before stays; this is a new entry beside it."}
      </p>
      <div class="pair">
        <button type="button" class="primary" disabled={busy.value} onClick={() => void sign()}>
          Sign <kbd>Enter</kbd>
        </button>
        <button type="button" onClick={() => dialog.current?.close()}>
          Back <kbd>Esc</kbd>
        </button>
      </div>
    </dialog>
  );
}
