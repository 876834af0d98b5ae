// The job of Flipper's server on its own library: mutual TLS, parse JSON, look up the handler, answer.
//
// Usage: NODE_PATH=.../node_modules node server.js CREDENTIALS
// Prints one line of JSON, {"port": N, "json_port": N}, and serves until it is ended. On `port` data are buffers, on
// `json_port` strings, as Flipper's server has them: each is the cheaper one for its kind of message. Nagle is off.

'use strict';

const fs = require('fs');
const path = require('path');
const tls = require('tls');
const {RSocketServer, BufferEncoders, UTF8Encoder} = require('rsocket-core');
const {Flowable, Single} = require('rsocket-flowable');
const {default: RSocketTCPServer} = require('rsocket-tcp-server');

const folder = process.argv[2];
const read = (name) => fs.readFileSync(path.join(folder, name));
const certificates = {
  key: read('server.key'),
  cert: read('server.crt'),
  ca: read('trust.crt'),
  requestCert: true,
  rejectUnauthorized: true,
};

const ROUTING = 0x80 | 0x7e;
const ITEM = Buffer.alloc(64, 'x');
const FIRST = 1000000; // numbers have seven digits, so that all messages of a kind are equally long

/** Sessions by the app id that their SETUP names: where a relayed request goes. */
const sessions = new Map();

/** The first tag of the routing entry that composite metadata begins with; undefined where there is none. */
function route(metadata) {
  if (metadata && metadata.length > 5 && metadata[0] === ROUTING) {
    return metadata.latin1Slice(5, 5 + metadata[4]);
  }
  return undefined;
}

class Handlers {
  constructor(socket, text) {
    this.socket = socket;
    this.text = text;
    this.count = 0;
    this.sum = 0;
    this.plugins = new Map([
      ['bench', new Map([
        ['add', ({a, b}) => ({sum: a + b})],
        ['note', ({n}) => { this.count += 1; this.sum += n; }],
        ['noted', () => ({count: this.count, sum: this.sum})],
      ])],
    ]);
    const bench = this.plugins.get('bench');
    const json = (name) => (payload) =>
      Single.of({data: this.bytes(JSON.stringify(bench.get(name)(JSON.parse(payload.data))))});
    this.routes = new Map([
      ['bench.echo', (payload) => Single.of({data: payload.data})],
      ['bench.add', json('add')],
      ['bench.noted', json('noted')],
      ['bench.drive', (payload) => this.drive(JSON.parse(payload.data))],
    ]);
  }

  bytes(text) {
    return this.text ? text : Buffer.from(text);
  }

  requestResponse(payload) {
    const name = route(payload.metadata);
    if (name === undefined) {
      return Single.of({data: this.bytes(JSON.stringify({success: this.execute(JSON.parse(payload.data))}))});
    }
    const handler = this.routes.get(name);
    if (handler !== undefined) {
      return handler(payload);
    }
    const target = name.startsWith('client:') ? sessions.get(name.slice(7)) : undefined;
    return target ? target.requestResponse(payload) : Single.error(new Error(`no handler for ${name}`));
  }

  /** Flipper's message to a plugin. */
  execute({method, params}) {
    if (method !== 'execute') {
      throw new Error(`unknown method ${method}`);
    }
    return this.plugins.get(params.api).get(params.method)(params.params);
  }

  fireAndForget(payload) {
    this.execute(JSON.parse(payload.data));
  }

  requestStream(payload) {
    const {count} = JSON.parse(payload.data);
    switch (route(payload.metadata)) {
      case 'bench.items':
        return items(count, () => ({data: ITEM}));
      case 'bench.numbers':
        return items(count, (n) => ({data: this.bytes(JSON.stringify({n: FIRST + n}))}));
      default:
        return Flowable.error(new Error('no such stream'));
    }
  }

  /** Calls the app `count` times, `window` at a time, and answers with what came of it. */
  drive({count, window}) {
    return new Single((subscriber) => {
      let next = 0;
      let done = 0;
      let sum = 0;
      const call = () => {
        const id = next++;
        const message = {
          id, method: 'execute', params: {api: 'bench', method: 'double', params: {n: FIRST + id}},
        };
        this.socket.requestResponse({data: this.bytes(JSON.stringify(message))}).subscribe({
          onComplete: (answer) => {
            sum += JSON.parse(answer.data).success.n;
            done += 1;
            if (next < count) {
              call();
            } else if (done === count) {
              subscriber.onComplete({data: this.bytes(JSON.stringify({calls: done, sum}))});
            }
          },
          onError: (error) => subscriber.onError(error),
        });
      };
      subscriber.onSubscribe(() => {});
      for (let started = 0; started < Math.min(window, count); started++) {
        call();
      }
    });
  }
}

/** As many payloads as are asked for, and no more. */
function items(count, make) {
  return new Flowable((subscriber) => {
    let sent = 0;
    let live = true;
    subscriber.onSubscribe({
      cancel: () => { live = false; },
      request: (n) => {
        for (const end = Math.min(count, sent + n); live && sent < end;) {
          subscriber.onNext(make(sent++));
        }
        if (live && sent === count) {
          live = false;
          subscriber.onComplete();
        }
      },
    });
  });
}

/** Resolves to the port that was bound. */
function listen(encoders, text) {
  return new Promise((resolve) => {
    const serverFactory = (connected) => {
      const server = tls.createServer(certificates, (socket) => {
        socket.setNoDelay(true);
        connected(socket);
      });
      server.on('listening', () => resolve(server.address().port));
      return server;
    };
    new RSocketServer({
      getRequestHandler: (socket, setup) => {
        const claims = setup.data && setup.data.length ? JSON.parse(setup.data) : {};
        if (claims.app_id) {
          sessions.set(claims.app_id, socket);
        }
        return new Handlers(socket, text);
      },
      transport: new RSocketTCPServer({host: '127.0.0.1', port: 0, serverFactory}, encoders),
    }).start();
  });
}

async function main() {
  const ports = {port: await listen(BufferEncoders, false)};
  ports.json_port = await listen({...BufferEncoders, data: UTF8Encoder}, true);
  process.stdout.write(JSON.stringify(ports) + '\n');
}

// The library reports a connection that the client closed as an error of its socket.
console.error = () => {};
main();
