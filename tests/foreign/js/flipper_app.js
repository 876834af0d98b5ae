// A desktop app as Flipper's SDK would make it, on rsocket-js: enrols on the plain port, then holds its session.
//
// Usage: node flipper_app.js '{"host", "insecurePort", "securePort", "directory", "app", "appId", "plugins",
//                             "backgroundPlugins"}'
// With "webSocketPort" the session is opened over WebSocket on that port, in place of "securePort".
// The directory already holds app.csr and privateKey.pem. Told on stdout, one JSON object a line: what happened.
// Taken from stdin, one JSON object a line: {"event": {...}} sends a message to the server, {"ask": {...}}
// makes a request, {"close": true} ends the session.

'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const {RSocketClient, BufferEncoders} = require('rsocket-core');
const {default: RSocketTcpClient, RSocketTlsClient} = require('rsocket-tcp-client');
const {default: RSocketWebSocketClient} = require('rsocket-websocket-client');
const WebSocket = require('ws');
const {Flowable, Single} = require('rsocket-flowable');

const KEEPALIVE_MS = 10000;
const LIFETIME_MS = 2147483647; // "never": what Flipper's SDK declares
const FILES_TO_CONNECT_MS = 200; // the SDK pauses for two seconds here

const options = JSON.parse(process.argv[2]);
const file = (name) => path.join(options.directory, name);
const tell = (happened, more) => process.stdout.write(JSON.stringify({happened, ...more}) + '\n');
const json = (payload) => JSON.parse(payload.data.toString('utf8'));
const asPayload = (value) => ({data: Buffer.from(JSON.stringify(value))});

function connect(Transport, transportOptions, claims, responder) {
  const transport = new Transport(transportOptions, BufferEncoders);
  transport.connectionStatus().subscribe({
    onNext: (status) => tell('transport', {status: status.kind, error: status.error && status.error.message}),
    onSubscribe: (subscription) => subscription.request(Number.MAX_SAFE_INTEGER),
  });
  return new RSocketClient({
    setup: {
      dataMimeType: 'text/plain',
      metadataMimeType: 'text/plain',
      keepAlive: options.keepAlive || KEEPALIVE_MS,
      lifetime: LIFETIME_MS,
      payload: asPayload(claims),
    },
    transport,
    responder,
    errorHandler: (error) => tell('protocol error', {text: error.message}),
  }).connect();
}

function claims(more) {
  return {os: 'MacOS', device: 'host', app: options.app, app_id: options.appId, sdk_version: 4, medium: 1, ...more};
}

async function enrol() {
  const socket = await connect(
    RSocketTcpClient, {host: options.host, port: options.insecurePort}, claims({device_id: 'unknown'}));
  const answer = json(await socket.requestResponse(asPayload({
    method: 'signCertificate',
    csr: fs.readFileSync(file('app.csr'), 'utf8'),
    destination: options.directory + '/',
    medium: 1,
    timestamp: Date.now(),
    logs: [`${Date.now()}:info:[conn] certificate exchange`],
  })));
  socket.close();
  fs.writeFileSync(file('connection_config.json'), JSON.stringify({...answer, medium: 1}), {mode: 0o600});
  tell('enrolled', {answer, files: fs.readdirSync(options.directory).sort()});
  return answer;
}

const started = new Set();

function answerTo({method, params}) {
  switch (method) {
    case 'getPlugins':
      return {success: {plugins: options.plugins}};
    case 'getBackgroundPlugins':
      return {success: {plugins: options.backgroundPlugins}};
    case 'isMethodSupported':
      return {success: {isSupported: params.method === 'reverse'}};
    case 'execute':
      if (!started.has(params.api)) {
        return {error: {name: 'ConnectionNotFound', message: `Connection ${params.api} not found for method execute`}};
      }
      if (params.method !== 'reverse') {
        return {error: {message: `Receiver ${params.method} not found.`}};
      }
      return {success: {text: [...params.params.text].reverse().join('')}};
    default:
      return {error: {message: `Received unknown method: ${method}`}};
  }
}

const responder = {
  requestResponse(payload) {
    const message = json(payload);
    tell('asked', {method: message.method, message});
    return Single.of(asPayload(answerTo(message)));
  },
  fireAndForget(payload) {
    const message = json(payload);
    tell('told', {method: message.method, message});
    if (message.method === 'init') {
      started.add(message.params.plugin);
    } else if (message.method === 'deinit') {
      started.delete(message.params.plugin);
    }
  },
  requestStream: () => Flowable.error(new Error('not used')),
  requestChannel: () => Flowable.error(new Error('not used')),
  metadataPush: () => Single.error(new Error('not used')),
};

function openSession(answer) {
  const tls = {
    servername: 'localhost',
    ca: fs.readFileSync(file('sonarCA.crt')),
    cert: fs.readFileSync(file('device.crt')),
    key: fs.readFileSync(file('privateKey.pem')),
    ALPNProtocols: options.alpn ? [options.alpn] : undefined,
  };
  const csr = fs.readFileSync(file('app.csr'), 'utf8');
  const own = claims({device_id: answer.deviceId, csr, csr_path: options.directory + '/'});
  if (options.webSocketPort) {
    const url = `wss://${options.host}:${options.webSocketPort}/rsocket`;
    return connect(RSocketWebSocketClient, {url, wsCreator: (address) => new WebSocket(address, tls)}, own, responder);
  }
  return connect(RSocketTlsClient, {host: options.host, port: options.securePort, ...tls}, own, responder);
}

function obey(socket, command) {
  if (command.event) {
    socket.fireAndForget(asPayload(command.event));
  } else if (command.ask) {
    socket.requestResponse(asPayload(command.ask)).then(
      (payload) => tell('answered', {data: payload.data.toString('utf8')}),
      (error) => tell('refused', {text: error.message, code: error.source && error.source.code}));
  } else if (command.close) {
    socket.close();
    setTimeout(() => process.exit(0), 50);
  }
}

async function main() {
  const answer = await enrol();
  await new Promise((resolve) => setTimeout(resolve, FILES_TO_CONNECT_MS));
  const socket = await openSession(answer);
  tell('connected');
  readline.createInterface({input: process.stdin}).on('line', (line) => obey(socket, JSON.parse(line)));
}

main().catch((error) => {
  tell('failed', {text: error.message});
  process.exit(1);
});
