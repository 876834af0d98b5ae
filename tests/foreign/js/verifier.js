// TLS clients as Node makes them. Reads one check a line from stdin, `PORT CA_FILE CERTIFICATE_FILE KEY_FILE`, and answers
// each with a line: `accepted`, or `refused` and the reason.
const fs = require('fs')
const readline = require('readline')
const tls = require('tls')

function check(line) {
  const [port, ca, cert, key] = line.split(' ')
  return new Promise((resolve) => {
    const options = { port: Number(port), host: '127.0.0.1', servername: 'localhost' }
    for (const [name, path] of Object.entries({ ca, cert, key })) options[name] = fs.readFileSync(path)
    const socket = tls.connect(options)
    socket.on('data', (data) => { resolve(data.toString() === 'k' ? 'accepted' : 'refused: another answer'); socket.destroy() })
    socket.on('error', (error) => resolve(`refused: ${error.code} ${error.message}`.replaceAll('\n', ' ')))
    socket.on('close', () => resolve('refused: the connection ended'))
  })
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) console.log(await check(line))
}

main()
