import { holder, moment } from "../format";
import type { ItemDetail, StoredDecision } from "../records";

const STAGES: Record<string, string> = {
  first: "first reading",
  second: "second reading",
  adjudication: "adjudication",
};

/** Readings that may be seen, and corrections of the decision, in their order. */
export function Readings({ detail }: { detail: ItemDetail | null }) {
  const readings = detail?.readings ?? [];
  const corrections = detail?.corrections ?? [];
  const own = readings.length === 0 ? detail?.item : null;
  if (!own?.decision && readings.length + corrections.length === 0) return null;
  const several = readings.length > 1;
  return (
    <section aria-label="Readings">
      <h3>{several ? "Readings" : "Decision"}</h3>
      <ul class="readings">
        {own?.decision && <One who={holder(own)} when={own.decided} what={own.decision} />}
        {readings.map((one) => (
          <One
            key={one.time}
            who={several ? `${one.name}, ${STAGES[one.stage] ?? one.stage}` : one.name}
            when={one.time}
            what={one.decision}
          />
        ))}
        {corrections.map((one) => (
          <One
            key={one.time}
            who={`${one.name}, correction`}
            when={one.time}
            what={one.decision}
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
