import { helpOpen, me, notice, shut, signOpen } from "./state";
import { Decision } from "./views/Decision";
import { Help } from "./views/Help";
import { Connection, Queue } from "./views/Queue";
import { Sign } from "./views/Sign";
import { ViewerPane } from "./views/ViewerPane";

const SIGN_IN = 401;

export function App() {
  return (
    <div class="page">
      {me.value?.development && (
        <section class="development" aria-label="Development mode">
          <p role="note">
            Development mode: nobody signs in, you act as <strong>{me.value.name}</strong>. Not for
            patients' data.
          </p>
        </section>
      )}
      <TopBar />
      {shut.value ? (
        <Shut />
      ) : (
        <div class="columns">
          <Queue />
          <ViewerPane />
          <Decision />
        </div>
      )}
      <p class={`notice ${notice.value?.tone ?? ""}`} role="status" aria-live="polite">
        {notice.value?.text}
      </p>
      {helpOpen.value && <Help />}
      {signOpen.value && <Sign />}
    </div>
  );
}

function TopBar() {
  return (
    <header class="top">
      <h1 class="brand">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <circle cx="16" cy="16" r="11" />
          <rect x="15" y="8" width="10" height="9" />
        </svg>
        Slicewatch
      </h1>
      <p class="device">Not a medical device; for research and evaluation</p>
      <Connection />
      {me.value && (
        <p class="who" title={me.value.roles.join(", ")}>
          {me.value.name}
        </p>
      )}
      <button type="button" class="quiet" onClick={() => (helpOpen.value = true)}>
        Keys <kbd>?</kbd>
      </button>
    </header>
  );
}

/** The page as a whole cannot be used, and why. */
function Shut() {
  const why = shut.value;
  if (!why) return null;
  return (
    <main class="shut">
      <h1>{why.status === SIGN_IN ? "Sign in to review" : "The review page is closed to you"}</h1>
      <p>{why.message}</p>
      <p class="dim">{why.remedy}</p>
      {why.status === SIGN_IN && (
        <a href={`/.auth/login/aad?post_login_redirect_uri=${encodeURIComponent("/api/review")}`}>
          Sign in
        </a>
      )}
    </main>
  );
}
