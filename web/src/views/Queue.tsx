import { count, holder, sentence, since, span } from "../format";
import type { Item } from "../records";
import { open } from "../session";
import {
  clock,
  connected,
  items,
  laneShown,
  openId,
  ownLanes,
  queue,
  serverNow,
  stateShown,
  total,
} from "../state";

/** Items that are drawn: the order is the queue's, so these come first. */
const MOST = 200;
const SOON = 0.75;

export function Queue() {
  const listed = queue.value;
  return (
    <nav class={`queue ${connected.value ? "" : "stale"}`} aria-label="Review queue">
      <header class="queue-head">
        <h2>Queue</h2>
        {listed && <span class="tally">{tally(listed.length)}</span>}
        <Choice
          label="Which studies"
          value={stateShown.value}
          choices={[
            ["waiting", "Waiting"],
            ["decided", "Decided"],
          ]}
          onChoose={(state) => {
            stateShown.value = state;
          }}
        />
      </header>
      {lanesSeen().length > 1 && (
        <Choice
          label="Lane"
          value={laneShown.value ?? "all"}
          choices={[
            ["all", "All lanes"],
            ["clinical", "Clinical"],
            ["forensic", "Forensic"],
          ]}
          onChoose={(lane) => {
            laneShown.value = lane === "all" ? null : lane;
          }}
        />
      )}
      {listed === null ? <Loading /> : <List listed={listed} />}
    </nav>
  );
}

/** Of a very long queue the server sends the beginning. */
function tally(listed: number): string {
  const cut = (items.value?.length ?? 0) < total.value;
  return (cut && !laneShown.value ? total.value : listed).toLocaleString("en");
}

function lanesSeen(): string[] {
  const lanes = new Set<string>(ownLanes.value);
  for (const one of items.value ?? []) lanes.add(one.lane);
  return [...lanes];
}

function Choice<T extends string>(props: {
  label: string;
  value: T;
  choices: readonly (readonly [T, string])[];
  onChoose: (value: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.choices.map(([value, text]) => (
        <button
          type="button"
          key={value}
          aria-pressed={value === props.value}
          onClick={() => props.onChoose(value)}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

function Loading() {
  return (
    <ul class="cards" aria-label="The queue is loading" aria-busy="true">
      {[0, 1, 2, 3].map((n) => (
        <li key={n} class="card ghost" />
      ))}
    </ul>
  );
}

function List({ listed }: { listed: readonly Item[] }) {
  if (listed.length === 0) return <Empty />;
  return (
    <ul class="cards" onKeyDown={walk}>
      {listed.slice(0, MOST).map((one) => (
        <li key={one.id}>
          <Card one={one} />
        </li>
      ))}
      {listed.length > MOST && (
        <li class="aside">and {count(listed.length - MOST, "study", "studies")} after these</li>
      )}
    </ul>
  );
}

function Empty() {
  return (
    <div class="empty">
      <p>{stateShown.value === "waiting" ? "Nothing waits for a reader." : "No decisions yet."}</p>
      <p class="dim">
        That says nothing of studies that are not here: no flag is not normal, only that no model
        met a rule.
      </p>
    </div>
  );
}

/** Up and down move between the cards. */
function walk(event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const list = event.currentTarget as HTMLElement;
  const cards = [...list.querySelectorAll<HTMLElement>("button.card")];
  const at = cards.indexOf(document.activeElement as HTMLElement);
  cards[Math.max(0, Math.min(cards.length - 1, at + step))]?.focus();
  event.preventDefault();
  event.stopPropagation();
}

function Card({ one }: { one: Item }) {
  const current = one.id === openId.value;
  return (
    <button
      type="button"
      class={`card ${one.lane} ${one.state}`}
      aria-current={current ? "true" : undefined}
      data-item={one.id}
      onClick={() => void open(one.id)}
    >
      <span class="card-top">
        <span class={`urgency ${level(one.urgency)}`} title="Priority, 0 to 100">
          {one.urgency}
        </span>
        <span class="lane">{one.lane}</span>
        {one.raised && <span class="raised">waited longest</span>}
        {one.stage && one.stage !== "first" && <span class="raised">{stageText(one)}</span>}
        <State one={one} />
      </span>
      <span class="summary">{sentence(one.summary)}</span>
      <Age one={one} />
    </button>
  );
}

function stageText(one: Item): string {
  return one.stage === "adjudication" ? "adjudication" : "second reading";
}

function level(urgency: number): string {
  if (urgency >= 70) return "high";
  return urgency >= 40 ? "medium" : "low";
}

function State({ one }: { one: Item }) {
  if (one.state === "claimed" && one.mine) return <span class="state yours">yours</span>;
  if (one.state === "claimed") return <span class="state held">{holder(one)}</span>;
  if (one.state === "decided") return <span class="state">{one.decision?.verdict}</span>;
  return <span class="state open">open</span>;
}

/** Age against the time that the lane allows, as text and as a line. */
function Age({ one }: { one: Item }) {
  const now = serverNow.value;
  const age = span(since(one.created, now));
  if (!one.due || !one.sla_s) return <span class="age">{age} old</span>;
  const left = (Date.parse(one.due) - now) / 1000;
  const used = Math.max(0, Math.min(1, 1 - left / one.sla_s));
  const late = left <= 0 || one.overdue === true;
  const look = late ? "late" : used >= SOON ? "soon" : "";
  return (
    <span class={`age ${look}`}>
      <span>{age} old</span>
      <span>{left <= 0 ? "overdue" : one.overdue ? `overdue, next in ${span(left)}` : `${span(left)} left`}</span>
      <progress class="sla" max={1} value={late ? 1 : used} aria-hidden="true" />
    </span>
  );
}

/** How fresh the queue is. */
export function Connection() {
  if (connected.value) {
    return (
      <span class="connection" title="The queue follows the server">
        <span class="dot" /> live
      </span>
    );
  }
  return (
    <span class="connection lost" data-now={clock.value}>
      <span class="dot" /> connection lost, trying again
    </span>
  );
}
