import { required, withAddition, withChange } from "../draft";
import { count, label, size } from "../format";
import type { DraftAddition } from "../draft";
import type { Finding, Verdict } from "../records";
import { draw, judge, removeAddition, select } from "../session";
import { allSeries, draft, item, marking, review, selected, told } from "../state";
import { MOST_CHARACTERS } from "./Decision";

/** Listed at once; a review can list thousands, of which those with a verdict to give come first. */
const MOST = 60;
const MOST_LABEL = 64;
const VERDICTS: readonly (readonly [Verdict, string, string])[] = [
  ["confirmed", "Accept", "A"],
  ["rejected", "Reject", "R"],
  ["changed", "Change", "C"],
];

export function Findings() {
  const one = item.value;
  const of = review.value;
  if (!one || !of) return null;
  const asked = new Set(required(one, of).map((finding) => finding.id));
  const listed = of.findings.toSorted((a, b) => Number(asked.has(b.id)) - Number(asked.has(a.id)));
  const done = [...asked].filter((id) => draft.value.findings[id]).length;
  return (
    <section aria-label="Findings">
      <h3>
        Findings
        <span class="figure">
          {marking.value && asked.size ? `${done} of ${asked.size} decided` : of.findings.length}
        </span>
      </h3>
      <datalist id="labels">
        {[...new Set(of.findings.map((finding) => finding.label))].map((text) => (
          <option key={text} value={text} />
        ))}
      </datalist>
      <ul class="findings">
        {listed.slice(0, MOST).map((finding) => (
          <Proposed key={finding.id} finding={finding} optional={!asked.has(finding.id)} />
        ))}
        {told.value.additions.map((addition, n) => (
          <Added key={addition.key} addition={addition} number={n + 1} />
        ))}
      </ul>
      {listed.length > MOST && <p class="dim">and {listed.length - MOST} more: N goes through all</p>}
      {(of.folded_findings ?? []).map((folded, n) => (
        <p key={n} class="dim">
          {count(folded.count, "further finding")} {label(folded.label)}, not listed
        </p>
      ))}
      {of.findings.length === 0 && told.value.additions.length === 0 && (
        <p class="dim">The models found nothing. That does not mean that there is nothing.</p>
      )}
      {marking.value && (
        <button type="button" class="add" onClick={() => draw(null)}>
          Draw a missed finding <kbd>D</kbd>
        </button>
      )}
    </section>
  );
}

function isSelected(id: string): boolean {
  return selected.value?.id === id;
}

function Proposed({ finding, optional }: { finding: Finding; optional: boolean }) {
  const marked = draft.value.findings[finding.id];
  const shown = told.value.findings[finding.id];
  const current = isSelected(finding.id);
  return (
    <li class={`finding ${shown?.verdict ?? "proposed"}`} aria-current={current || undefined}>
      <button
        type="button"
        class="name"
        data-finding={finding.id}
        onClick={() => select({ kind: "finding", id: finding.id })}
      >
        <span class="swatch" />
        <strong>{label(shown?.label || finding.label)}</strong>
        <span class="score" title="Highest score of its slices">
          {finding.score.toFixed(2)}
        </span>
        <span class="facts">
          {modality(finding.series_instance_uid)}
          {size(finding.extent_mm)} · {count(finding.slices.length, "slice")}
          {optional && " · below the rules, optional"}
          {!marking.value && shown && ` · ${shown.verdict}`}
        </span>
      </button>
      {marking.value && (
        <div class="verdicts" role="group" aria-label={`Verdict on ${label(finding.label)}`}>
          {VERDICTS.map(([verdict, text, key]) => (
            <button
              type="button"
              key={verdict}
              class={verdict}
              aria-pressed={marked?.verdict === verdict}
              title={`${text} (${key})`}
              onClick={() => judge(verdict, finding.id)}
            >
              {text}
            </button>
          ))}
        </div>
      )}
      {marking.value && current && marked?.verdict === "changed" && <Change finding={finding} />}
    </li>
  );
}

/** Told only where there are several. */
function modality(series: string): string {
  const listed = new Set(review.value?.findings.map((one) => one.series_instance_uid));
  const found = allSeries.value.find((one) => one.uid === series);
  return listed.size > 1 && found ? `${found.modality} · ` : "";
}

function Change({ finding }: { finding: Finding }) {
  const marked = draft.value.findings[finding.id];
  return (
    <div class="change">
      <label>
        Label
        <input
          list="labels"
          maxLength={MOST_LABEL}
          value={marked?.label ?? finding.label}
          onInput={(event) => {
            const text = event.currentTarget.value;
            draft.value = withChange(draft.value, finding.id, { label: text });
          }}
        />
      </label>
      <label>
        Why
        <input
          maxLength={MOST_CHARACTERS}
          value={marked?.comment ?? ""}
          onInput={(event) => {
            const comment = event.currentTarget.value;
            draft.value = withChange(draft.value, finding.id, { comment });
          }}
        />
      </label>
      <button type="button" onClick={() => draw({ kind: "finding", id: finding.id })}>
        Box on this slice <kbd>E</kbd>
      </button>
    </div>
  );
}

function Added({ addition, number }: { addition: DraftAddition; number: number }) {
  const current = isSelected(addition.key);
  const set = (change: Partial<DraftAddition>) => {
    draft.value = withAddition(draft.value, { ...addition, ...change });
  };
  return (
    <li class="finding added" aria-current={current || undefined}>
      <button
        type="button"
        class="name"
        onClick={() => select({ kind: "addition", id: addition.key })}
      >
        <span class="swatch" />
        <strong>{label(addition.label) || "no label"}</strong>
        <span class="facts">
          added {number} · {count(addition.boxes.length, "slice")}
        </span>
      </button>
      {marking.value && (
        <div class="change">
          <label>
            Label
            <input
              list="labels"
              maxLength={MOST_LABEL}
              value={addition.label}
              onInput={(event) => set({ label: event.currentTarget.value })}
            />
          </label>
          <div class="pair">
            <button
              type="button"
              onClick={() => {
                select({ kind: "addition", id: addition.key }, { jump: false });
                draw({ kind: "addition", id: addition.key });
              }}
            >
              Box on this slice <kbd>E</kbd>
            </button>
            <button type="button" onClick={() => removeAddition(addition.key)}>
              Remove
            </button>
          </div>
        </div>
      )}
    </li>
  );
}
