// The official JavaScript client against the emulator, which is driven by its control API.
// Arguments: what the emulator says of itself, as JSON. Says on stdout what it got.
import { B24OAuth, B24PullClientManager } from '@bitrix24/b24jssdk'
import WebSocket from 'ws'

const emulator = JSON.parse(process.argv[2])

// It looks for what a page has.
globalThis.document = { location: { href: emulator.portal } }
globalThis.window = { WebSocket, addEventListener() {}, removeEventListener() {} }
globalThis.WebSocket = WebSocket

async function control(verb, path, body) {
  const answer = await fetch(`${emulator.control}${path}`, { method: verb, body: body && JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${verb} ${path}: ${answer.status} ${await answer.text()}`)
  return answer.json()
}

const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} in time`)), 30000).unref()),
  ])

// Its token has expired, so it begins with a refresh.
const b24 = new B24OAuth(
  {
    applicationToken: '',
    userId: 1,
    memberId: emulator.member_id,
    accessToken: emulator.token,
    refreshToken: emulator.refresh_token,
    expires: 0,
    expiresIn: 0,
    scope: 'pull',
    domain: new URL(emulator.portal).host,
    clientEndpoint: `${emulator.portal}/rest/`,
    serverEndpoint: `${new URL(emulator.oauth).origin}/rest/`,
    status: 'L',
    issuer: 'request',
  },
  { clientId: emulator.client_id, clientSecret: emulator.client_secret },
)
b24.offClientSideWarning()

const pull = new B24PullClientManager({ b24, restApplication: emulator.client_id, userId: 1, skipStorageInit: true })
const got = new Promise((resolve) => {
  pull.subscribe({ moduleId: 'application', callback: (message) => resolve(message) })
})
await within(pull.start(), 'connection')
await control('POST', '/events', { command: 'order_update', params: { id: 7 } })
const message = await within(got, 'event')

// To whoever listens on the portal-wide channel of user 1.
await within(pull.sendMessage([1], 'application', 'hello', { from: 'JavaScript' }), 'answer')

// What was published is in the journal once it has arrived.
let published = []
while (!published.length) {
  await new Promise((resolve) => setTimeout(resolve, 20))
  published = await control('GET', '/journal?kind=published')
}
const kinds = new Set((await control('GET', '/journal')).map((entry) => entry.kind))
console.log(JSON.stringify({ command: message.command, params: message.params, kinds: [...kinds].sort() }))
pull.destroy()
process.exit(0)
