import type { Review } from "../records";

const MOST = 50;

/** What does not fit in the study; evidence, never a statement that it is authentic. */
export function Integrity({ issues }: { issues: Review["integrity"] }) {
  return (
    <section aria-label="Integrity">
      <h3>
        Integrity <span class="figure">{issues.length}</span>
      </h3>
      {issues.length === 0 && <p class="dim">No check fired. That is no proof of authenticity.</p>}
      <ul class="issues">
        {issues.slice(0, MOST).map((one, n) => (
          <li key={n} class={one.severity}>
            <strong>{one.code.replaceAll("-", " ")}</strong>
            <span>{one.explanation}</span>
          </li>
        ))}
      </ul>
      {issues.length > MOST && <p class="dim">and {issues.length - MOST} more in the review</p>}
    </section>
  );
}
