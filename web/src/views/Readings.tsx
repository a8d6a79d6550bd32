import { moment } from "../format";
import type { ItemDetail, StoredDecision } from "../records";

/** Readings that may be seen, and corrections of the decision, in their order. */
export function Readings({ detail }: { detail: ItemDetail | null }) {
  const readings = detail?.readings ?? [];
  const corrections = detail?.corrections ?? [];
  const own = readings.length === 0 && detail?.item.decision ? detail.item : null;
  if (!own && readings.length + corrections.length === 0) return null;
  return (
    <section aria-label="Readings">
      <h3>{readings.length > 1 ? "Readings" : "Decision"}</h3>
      <ul class="readings">
        {own?.decision && (
          <One who={own.holder ?? ""} when={own.decided} what={own.decision} />
        )}
        {readings.map((one, n) => (
          <One key={`r${n}`} who={one.reader} when={one.decided} what={one.decision} />
        ))}
        {corrections.map((one, n) => (
          <One
            key={`c${n}`}
            who={`${one.reader ?? ""}, correction`}
            when={one.corrected}
            what={one}
            reason={one.reason}
          />
        ))}
      </ul>
    </section>
  );
}

function One(props: { who: string; when?: string | null; what: StoredDecision; reason?: string }) {
  const { what } = props;
  const added = what.additions?.length ?? 0;
  return (
    <li>
      <strong>
        {what.verdict}
        {added > 0 && `, ${added} added`}
      </strong>
      <span class="dim">
        {props.who}
        {props.when ? `, ${moment(props.when)}` : ""}
      </span>
      {props.reason && <p>{props.reason}</p>}
      {what.comment && <p class="said">{what.comment}</p>}
    </li>
  );
}
