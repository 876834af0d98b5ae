// A server on rsocket-js 0.0.27 with the routes that the judge asks for: `node server.js PORT LEASE_PORT`. Plain TCP on loopback.
'use strict';

const {
  BufferEncoders,
  Lease,
  Leases,
  RSocketServer,
  decodeCompositeMetadata,
  decodeRoutes,
  encodeCompositeMetadata,
  encodeRoute,
} = require('rsocket-core');
const {Flowable, Single} = require('rsocket-flowable');
const TcpServer = require('rsocket-tcp-server').default;

const ROUTING = 'message/x.rsocket.routing.v0';
const CREDIT = 32;
const TURN = 64;
const LEASE_REQUESTS = 5;

const fired = {count: 0};
const seen = {waits_cancelled: 0, flows_cancelled: 0, made: 0, pushed: 0};

function routeOf(metadata) {
  for (const entry of decodeCompositeMetadata(metadata)) {
    if (entry.mimeType === ROUTING) {
      for (const route of decodeRoutes(entry.content)) {
        return route;
      }
    }
  }
  throw new Error('no route');
}

const json = (value) => ({data: Buffer.from(JSON.stringify(value))});
const parsed = (payload) => (payload.data && payload.data.length ? JSON.parse(payload.data.toString()) : null);
const routed = () => encodeCompositeMetadata([[ROUTING, encodeRoute('call.it')]]);

// Payloads as they are asked for. `next` gives one, or null at the end.
function source(next, {fails = null, cancelled = () => {}} = {}) {
  return new Flowable((subscriber) => {
    let asked = 0;
    let done = false;
    let running = false;
    let ahead = next();
    function run() {
      for (let turn = 0; turn < TURN; turn++) {
        if (done || (ahead !== null && asked === 0)) {
          running = false;
          return;
        }
        if (ahead === null) {
          done = true;
          if (fails) {
            subscriber.onError(new Error(fails));
          } else {
            subscriber.onComplete();
          }
          return;
        }
        asked--;
        const payload = ahead;
        ahead = next();
        subscriber.onNext(payload);
      }
      setImmediate(run);
    }
    subscriber.onSubscribe({
      request: (n) => {
        asked += n;
        if (!running) {
          running = true;
          run();
        }
      },
      cancel: () => {
        if (!done) {
          done = true;
          cancelled();
        }
      },
    });
  });
}

function planned(payload, options) {
  const [count, size] = payload.data.toString().split(':').map(Number);
  let left = count;
  return source(() => (left-- > 0 ? {data: Buffer.alloc(size)} : null), options);
}

function flow() {
  let number = 0;
  const next = () => {
    seen.made++;
    return {data: Buffer.from(String(number++))};
  };
  return source(next, {cancelled: () => seen.flows_cancelled++});
}

// What comes in goes out; the first payload says where it is for. Demand is passed on.
function echo(payloads) {
  return new Flowable((subscriber) => {
    let upstream = null;
    let route = null;
    let asked = 0;
    let count = 0;
    let done = false;
    let ended = false;
    const waiting = [];
    const sizes = [];
    function push() {
      while (!done && asked > 0 && waiting.length) {
        if (route === 'probe.fail' && ++count === 2) {
          done = true;
          subscriber.onError(new Error('probe.fail fails at the second payload.'));
          return;
        }
        asked--;
        const payload = waiting.shift();
        if (!ended) {
          upstream.request(1);
        }
        subscriber.onNext({data: payload.data, metadata: payload.metadata});
      }
      if (ended && !waiting.length && !done) {
        done = true;
        subscriber.onComplete();
      }
    }
    function taken(payload) {
      if (route === null) {
        try {
          route = routeOf(payload.metadata);
          if (!['echo.channel', 'probe.collect', 'probe.fail'].includes(route)) {
            throw new Error(`no route ${route}`);
          }
        } catch (error) {
          done = true;
          subscriber.onError(error);
          return;
        }
      }
      if (route === 'probe.collect') {
        const {data, metadata} = payload;
        sizes.push([data ? data.length : 0, metadata ? metadata.length : -1]);
        upstream.request(1);
      } else {
        waiting.push(payload);
      }
      push();
    }
    subscriber.onSubscribe({
      request: (n) => {
        asked += n;
        if (upstream) {
          push();
          return;
        }
        payloads.subscribe({
          onSubscribe: (subscription) => {
            upstream = subscription;
            upstream.request(CREDIT);
          },
          onNext: taken,
          onError: () => {
            done = true;
          },
          onComplete: () => {
            ended = true;
            if (route === 'probe.collect') {
              waiting.push(json(sizes));
            }
            push();
          },
        });
      },
      cancel: () => {
        done = true;
        if (upstream) {
          upstream.cancel();
        }
      },
    });
  });
}

// All that a stream of the client gives, up to `limit` (0: all); an error as the last of it.
function collect(flowable, limit) {
  return new Single((subscriber) => {
    const values = [];
    let subscription = null;
    let done = false;
    const end = () => {
      if (!done) {
        done = true;
        subscriber.onComplete(json(values));
      }
    };
    subscriber.onSubscribe(() => subscription && subscription.cancel());
    flowable.subscribe({
      onSubscribe: (one) => {
        subscription = one;
        subscription.request(CREDIT);
      },
      onNext: (payload) => {
        values.push(parsed(payload));
        if (values.length === limit) {
          subscription.cancel();
          end();
        } else {
          subscription.request(1);
        }
      },
      onError: (error) => {
        values.push({error: String(error.message)});
        end();
      },
      onComplete: end,
    });
  });
}

function answered(single) {
  return new Single((subscriber) => {
    subscriber.onSubscribe(() => {});
    single.subscribe({
      onComplete: (payload) => subscriber.onComplete(json([parsed(payload)])),
      onError: (error) => subscriber.onComplete(json([{error: String(error.message)}])),
    });
  });
}

function call(socket, how, payload) {
  const metadata = routed();
  switch (how) {
    case 'call.response':
      return answered(socket.requestResponse({data: payload.data, metadata}));
    case 'call.fire':
      socket.fireAndForget({data: payload.data, metadata});
      return Single.of(json([]));
    case 'call.stream':
      return collect(socket.requestStream({data: Buffer.from('{}'), metadata}), Number(payload.data.toString()));
    case 'call.channel': {
      const count = Number(payload.data.toString());
      let number = 0;
      const next = () => {
        if (number === count) {
          return null;
        }
        const data = Buffer.from(String(number));
        return number++ === 0 ? {data, metadata} : {data};
      };
      return collect(socket.requestChannel(source(next)), 0);
    }
    default:
      return Single.error(new Error(`no route ${how}`));
  }
}

const never = (cancelled) => new Single((subscriber) => subscriber.onSubscribe(cancelled));

function handlers(socket) {
  return {
    requestResponse(payload) {
      const route = routeOf(payload.metadata);
      const {data, metadata} = payload;
      switch (route) {
        case 'echo.request':
          return Single.of({data, metadata});
        case 'probe.metadata':
          return Single.of({data: metadata});
        case 'echo.error':
          return Single.error(new Error('echo.error always fails.'));
        case 'echo.never':
          return never(() => {});
        case 'probe.wait':
          return never(() => seen.waits_cancelled++);
        case 'echo.slow':
          return new Single((subscriber) => {
            const timer = setTimeout(() => subscriber.onComplete({data, metadata}), Number(data.toString()));
            subscriber.onSubscribe(() => clearTimeout(timer));
          });
        case 'echo.fired':
          return Single.of(json(fired));
        case 'probe.seen':
          return Single.of(json(seen));
        default:
          return call(socket, route, payload);
      }
    },
    fireAndForget(payload) {
      if (routeOf(payload.metadata) === 'echo.fire') {
        fired.count++;
      }
    },
    metadataPush(payload) {
      if (routeOf(payload.metadata) === 'push.count') {
        seen.pushed++;
      }
      return Single.of(undefined);
    },
    requestStream(payload) {
      switch (routeOf(payload.metadata)) {
        case 'echo.stream':
          return planned(payload);
        case 'echo.stream-error':
          return planned(payload, {fails: 'echo.stream-error fails.'});
        case 'probe.flow':
          return flow();
        default:
          return Flowable.error(new Error('no route'));
      }
    },
    requestChannel: echo,
  };
}

// What the library throws outside of a handler would end the process, and with it every session: it is noted instead.
process.on('uncaughtException', (error) => console.error(error));

function serve(port, leases) {
  const transport = new TcpServer({host: '127.0.0.1', port: Number(port)}, BufferEncoders);
  new RSocketServer({getRequestHandler: handlers, leases, transport}).start();
}

serve(process.argv[2]);
serve(process.argv[3], () => new Leases().sender(() => Flowable.just(new Lease(60000, LEASE_REQUESTS))));
