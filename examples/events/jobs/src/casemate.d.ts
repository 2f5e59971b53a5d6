// What Casemate adds to the interfaces of the web, for editors and `tsc`. Nothing
// of this file is deployed.

declare namespace Casemate {
  /** What a module exports as default: at least one of the three. */
  interface Handler {
    /** Answers a request that came by a route, or by `casemate invoke`. */
    fetch?(request: Request, env: Env, ctx: Context): Response | Promise<Response>;
    /** Runs by a schedule. */
    scheduled?(controller: ScheduledController, env: Env, ctx: Context): void | Promise<void>;
    /** Takes messages from a queue. */
    queue?(batch: MessageBatch, env: Env, ctx: Context): void | Promise<void>;
  }

  /** The values under `environment` in casemate.yaml. */
  type Env = Readonly<Record<string, string | undefined>>;

  interface Context {
    /** Keeps the invocation going until the promise has settled; the answer does not wait for it. */
    waitUntil(promise: Promise<unknown>): void;
  }

  /** What the platform knows of an invocation. */
  interface Invocation {
    /** The request's id, which log lines and receipts carry. */
    readonly id: string;
    /** The verified identity of the caller, or "anonymous". */
    readonly caller?: string;
    /** The wildcards of the route: {id} of /orders/{id} is params.id. */
    readonly params: Readonly<Record<string, string>>;
    /** What called: http, invoke, schedule or queue. */
    readonly trigger: string;
    /** When the invocation is stopped, in milliseconds since 1970. */
    readonly deadline: number;
  }

  interface ScheduledController {
    /** When it was due, in milliseconds since 1970. */
    readonly scheduledTime: number;
    readonly cron: string;
  }

  interface MessageBatch<Body = unknown> {
    readonly queue: string;
    readonly messages: readonly Message<Body>[];
    ackAll(): void;
    retryAll(): void;
  }

  /** Done when the handler returns, unless retry was called. */
  interface Message<Body = unknown> {
    readonly id: string;
    readonly timestamp: Date;
    readonly body: Body;
    /** How often it was delivered, this time included. */
    readonly attempts: number;
    ack(): void;
    retry(): void;
  }
}

interface Request {
  /** Of a request that came in; a request that the function makes itself has none. */
  readonly casemate?: Casemate.Invocation;
}

// Files that are imported as text.
declare module "*.txt" {
  const text: string;
  export default text;
}
declare module "*.md" {
  const text: string;
  export default text;
}
declare module "*.html" {
  const text: string;
  export default text;
}
declare module "*.css" {
  const text: string;
  export default text;
}
declare module "*.svg" {
  const text: string;
  export default text;
}
declare module "*.sql" {
  const text: string;
  export default text;
}
declare module "*.csv" {
  const text: string;
  export default text;
}
declare module "*.graphql" {
  const text: string;
  export default text;
}
