// The scenario of scenario.toml, in terms of a `peer` that client.js makes from each of the two libraries:
//
//   peer.ask(route, data)            {answer: a promise of {data, metadata}, cancel()}
//   peer.fire(route, data)           a promise, fulfilled when it is sent
//   peer.push(route)                 the same
//   peer.stream(route, data, taker)  what comes goes to the taker
//   peer.channel(route, first, more, taker)  `more` is an async iterator of Buffers; the same
//   peer.ready()                     a promise, fulfilled when the broker lets it make requests
//   peer.failure(error)              {code, text} of an error that the library gave
//   peer.routeOf(metadata)           the first tag

'use strict';

const STEP_LIMIT_MS = 40000;
const LARGE = 200000;
const MAX_REQUEST_N = 0x7fffffff;
const NO = 'the client says no';

const json = (value) => Buffer.from(JSON.stringify(value));
const parse = (data) => JSON.parse(data.toString());

// Takes a stream: asks for `credit` payloads at a time, and cancels after `limit`.
class Taker {
  constructor(credit = MAX_REQUEST_N, limit = Infinity, keepAsking = true) {
    Object.assign(this, {credit, limit, keepAsking, values: []});
    this.ended = new Promise((resolve, reject) => Object.assign(this, {complete: resolve, fail: reject}));
    this.ended.catch(() => {}); // whoever asks is told
  }

  next(data) {
    this.values.push(data);
    if (this.values.length === this.limit) {
      this.subscription.cancel();
      this.complete();
    } else if (this.keepAsking && this.values.length % this.credit === 0) {
      this.subscription.request(this.credit);
    }
  }

  async all() {
    await this.ended;
    return this.values;
  }
}

// Gives what an async iterator yields to `next`, no faster than `request` asks for.
class Source {
  constructor(values, {next, complete, fail}, canceled = () => {}) {
    Object.assign(this, {values, next, complete, fail, canceled, credit: 0, busy: false, done: false});
  }

  request(n) {
    this.credit += n;
    if (!this.busy) {
      this.send();
    }
  }

  async send() {
    this.busy = true;
    try {
      while (this.credit > 0 && !this.done) {
        this.credit--;
        const {value, done} = await this.values.next();
        if (!this.done) {
          this.done = done;
          done ? this.complete() : this.next(value);
        }
      }
    } catch (error) {
      this.done = true;
      this.fail(error);
    }
    this.busy = false;
  }

  cancel() {
    if (!this.done) {
      this.done = true;
      this.canceled();
    }
  }
}

// What a peer sends, to be read with `for await`; two at a time are asked for.
class Incoming {
  constructor(first, subscription) {
    Object.assign(this, {items: [first], subscription, ended: false, taken: 0, wake: () => {}});
  }

  next(data) {
    this.items.push(data);
    this.wake();
  }

  end() {
    this.ended = true;
    this.wake();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.items.length) {
        yield this.items.shift();
        if (this.taken++ % 2 === 0 && !this.ended) {
          this.subscription.request(2);
        }
      }
      if (this.ended) {
        return;
      }
      await new Promise((resolve) => Object.assign(this, {wake: resolve}));
    }
  }
}

async function* each(values) {
  yield* values;
}

// --- requests of the client ------------------------------------------------------------------------------------------

const numbers = Array.from({length: 100}, (_, number) => Buffer.from(String(number)));
const pattern = Buffer.from(Array.from({length: LARGE}, (_, index) => index % 251));

function steps(peer) {
  const ask = (route, data = Buffer.alloc(0)) => peer.ask(route, data).answer;
  const call = async (route, value) => parse((await ask(route, json(value))).data);
  const heard = (name) => call('interop.heard', {name});
  const stream = (route, data, taker = new Taker()) => (peer.stream(route, Buffer.from(data), taker), taker);
  const channel = (route, values, taker = new Taker(2)) =>
    (peer.channel(route, values[0], each(values.slice(1)), taker), taker);
  const refused = (promise) => promise.then((answer) => ({answer}), peer.failure);
  const failing = async (taker) => {
    const {code, text} = await refused(taker.ended);
    return {received: taker.values.length, code, text};
  };
  const sizes = async (taker) => ({sizes: (await taker.all()).map((data) => data.length)});

  // How many payloads have come, when `count` have and what might have been sent behind them has too.
  async function settled(taker, count) {
    while (taker.values.length < count) {
      await call('echo.request', {});
    }
    await call('echo.request', {});
    return taker.values.length;
  }

  return {
    async 'response'() {
      const answer = await ask('echo.request', Buffer.from('00ff68656c6c6f', 'hex'));
      return {data: answer.data.toString('hex'), route: peer.routeOf(answer.metadata)};
    },
    'response-empty': async () => ({size: ((await ask('echo.request')).data || '').length}),
    'response-error': () => refused(ask('echo.error')),
    'response-invalid': async () => ({code: (await refused(ask('echo.nowhere'))).code}),
    async 'response-fragments'() {
      const {data} = await ask('echo.request', pattern);
      return {size: data.length, same: data.equals(pattern)};
    },
    async 'response-cancel'() {
      const never = peer.ask('interop.never', json({}));
      never.answer.catch(() => {});
      await call('echo.request', {}); // the other request is on its way by now
      never.cancel();
      return {stopped: await heard('never')};
    },
    async 'fire'() {
      await peer.fire('interop.fired', Buffer.alloc(0));
      return {heard: await heard('fired')};
    },
    async 'fire-fragments'() {
      await peer.fire('interop.fired', pattern);
      return {heard: await heard('fired')};
    },
    async 'push'() {
      await peer.push('interop.pushed');
      return {heard: await heard('pushed')};
    },
    'stream': () => sizes(stream('echo.stream', '7:100', new Taker(2))),
    async 'stream-credit'() {
      const taker = stream('interop.numbers', '', new Taker(3, Infinity, false));
      const first = await settled(taker, 3);
      taker.subscription.request(4);
      const then = await settled(taker, 7);
      taker.subscription.cancel();
      return {first, then, stopped: await heard('numbers')};
    },
    async 'stream-cancel'() {
      const {length} = await stream('interop.numbers', '', new Taker(5, 5)).all();
      return {received: length, stopped: await heard('numbers')};
    },
    'stream-error': () => failing(stream('echo.stream-error', '3:10')),
    'stream-fragments': () => sizes(stream('echo.stream', '1:16777215')),
    async 'channel'() {
      const values = ['one', 'two', 'three'].map((text) => Buffer.from(text));
      return {data: (await channel('echo.channel', values).all()).map(String)};
    },
    async 'channel-credit'() {
      const values = await channel('echo.channel', numbers).all();
      return {received: values.length, in_order: values.every((data, index) => data.equals(numbers[index]))};
    },
    'channel-fragments': () => sizes(channel('echo.channel', [pattern, pattern])),
    'channel-error': () => failing(channel('interop.once', numbers.slice(0, 2))),
    async 'channel-fails'() {
      async function* failing() {
        yield numbers[1];
        yield numbers[2];
        throw new Error(NO);
      }
      peer.channel('interop.listen', numbers[0], failing(), new Taker());
      return {heard: await heard('listen')};
    },
    async 'channel-cancel'() {
      const {length} = await channel('interop.chat', numbers.slice(0, 1), new Taker(3, 3)).all();
      return {received: length, stopped: await heard('numbers')};
    },
    async 'lease'() {
      await peer.ready();
      let answered = 0;
      for (let number = 0; number < 8; number++) {
        ask('echo.request').then(() => answered++, () => {});
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
      return {answered};
    },
    async 'resume'() {
      const request = JSON.stringify({last: 300, size: 10000});
      const values = await stream('interop.count', request, new Taker(50)).all();
      return {received: values.length, in_order: values.every((data, index) => Number(data) === index + 1)};
    },
  };
}

// --- requests of the broker ------------------------------------------------------------------------------------------

class App {
  constructor() {
    this.made = 0;
    this.notes = {};
  }

  note(name) {
    return (this.notes[name] ||= resolvable());
  }

  // What `route` was used for has happened.
  happened(route) {
    this.note(route.replace('interop.', '')).resolve();
  }

  async response(route, data) {
    switch (route) {
      case 'interop.same':
        return data;
      case 'interop.add':
        return json(Object.values(parse(data)).reduce((sum, value) => sum + value));
      case 'interop.size':
        return json(data.length);
      case 'interop.heard':
        await this.note(parse(data)).promise;
        return json(true);
      case 'interop.made':
        return json(this.made);
      case 'interop.never':
        return new Promise(() => {});
      default:
        throw new Error(NO);
    }
  }

  async *stream(route, data) {
    const last = route === 'interop.numbers' ? Infinity : parse(data);
    for (let number = 1; number <= last; number++) {
      this.made = number;
      yield json(number);
    }
    if (route === 'interop.fails') {
      throw new Error(NO);
    }
  }

  async *channel(route, incoming) {
    for await (const data of incoming) {
      yield route === 'interop.double' ? json(2 * parse(data)) : data;
      if (route === 'interop.once') {
        throw new Error(NO);
      }
    }
  }
}

function resolvable() {
  const made = {};
  made.promise = new Promise((resolve) => Object.assign(made, {resolve}));
  return made;
}

// --- the program -----------------------------------------------------------------------------------------------------

async function run(peer, names) {
  const own = steps(peer);
  const drive = async (step) => parse((await peer.ask('interop.drive', json({step})).answer).data);
  for (const step of names) {
    const late = new Promise((_, reject) => setTimeout(reject, STEP_LIMIT_MS, new Error('too late')).unref());
    const told = await Promise.race([own[step] ? own[step]() : drive(step), late]).then(
      (detail) => ({ok: true, detail}), (error) => ({ok: false, detail: error.message}));
    console.log(JSON.stringify({step, ...told}));
  }
}

module.exports = {App, Incoming, Source, run};
