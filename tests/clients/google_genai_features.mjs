// What @google/genai can do beyond text, through Chaperone.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiError, GoogleGenAI } from '@google/genai';
import * as checks from './checks.mjs';
import { CHAPERONE, MODEL, USER, marker, refusal } from './checks.mjs';

const LARGE_LETTERS = 4_000_000;
// More than the SDK sends at once.
const UPLOADED_BYTES = 20_000_000;

const httpOptions = { baseUrl: CHAPERONE, headers: { 'x-chaperone-user': USER }, timeout: checks.TIMEOUT_MS };
const { models, files } = new GoogleGenAI({ apiKey: checks.API_KEY, vertexai: false, httpOptions });

const simulate = (script) => ({ httpOptions: { headers: { 'x-simulate': script } } });
const generate = (contents, config) => models.generateContent({ model: MODEL, contents, config });
const sentBody = async (mark) => (await checks.sent(mark)).body;

await checks.run({
  async system_instruction() {
    const mark = marker();
    const answer = await generate(mark, { systemInstruction: 'Be brief.' });
    assert.match(answer.text, /^\[system: Be brief\./);
    assert.equal((await sentBody(mark)).systemInstruction.parts[0].text, 'Be brief.');
  },

  async json_schema() {
    const mark = marker();
    const responseSchema = { type: 'OBJECT', properties: { town: { type: 'STRING' } }, required: ['town'] };
    const say = simulate(`say=${Buffer.from('{"town": "Ulm"}').toString('base64url')}`);
    const answer = await generate(mark, { ...say, responseMimeType: 'application/json', responseSchema });
    assert.deepEqual(JSON.parse(answer.text), { town: 'Ulm' });
    assert.deepEqual((await sentBody(mark)).generationConfig.responseSchema.required, ['town']);
  },

  // A turn with a call and its result: both reach the model, and the signature of the call unchanged.
  async functions() {
    const mark = marker();
    const call = { functionCall: { name: 'weather', args: { town: 'Ulm' } }, thoughtSignature: 'AHNpZ25lZP8=' };
    const result = { functionResponse: { name: 'weather', response: { sky: 'clear' } } };
    const tools = [{ functionDeclarations: [{ name: 'weather', description: 'The sky now.' }] }];
    const contents = [
      { role: 'user', parts: [{ text: mark }] },
      { role: 'model', parts: [call] },
      { role: 'user', parts: [result] },
    ];
    await generate(contents, { tools });
    const body = await sentBody(mark);
    assert.deepEqual(body.tools, tools);
    assert.deepEqual(body.contents.slice(1).map((turn) => turn.parts[0]), [call, result]);
  },

  async inline_image() {
    const mark = marker();
    const data = Buffer.alloc(16_384, 7).toString('base64');
    await generate([mark, { inlineData: { mimeType: 'image/png', data } }]);
    assert.equal((await sentBody(mark)).contents[0].parts[1].inlineData.data, data);
  },

  async embeddings() {
    const answer = await models.embedContent({ model: 'gemini-embedding-001', contents: [marker(), 'two'] });
    assert(answer.embeddings.length > 0 && answer.embeddings.every((one) => one.values.length > 0));
  },

  async models_list() {
    const names = [];
    for await (const one of await models.list()) names.push(one.name);
    assert(names.includes(`models/${MODEL}`), `received ${names}`);
  },

  async an_error() {
    const error = await refusal(ApiError, () => generate(marker(), simulate('status=503')));
    assert.equal(error.status, 503);
  },

  async cancelled() {
    const contents = `${marker()} ${'of sea and wind. '.repeat(40)}`;
    const stop = new AbortController();
    const config = { ...simulate('gap_ms=50,chunk=4'), abortSignal: stop.signal };
    const chunks = await models.generateContentStream({ model: MODEL, contents, config });
    await chunks.next();
    stop.abort();
    await assert.rejects(async () => {
      for await (const _ of chunks);
    });
    const left = async () => [...(await checks.readRecords()).values()].some((item) => item.outcome === 'client_left');
    const deadline = Date.now() + checks.RECORDED_WITHIN_MS;
    while (!(await left())) {
      assert(Date.now() < deadline, 'the call is not recorded as left');
      await sleep(100);
    }
  },

  async large_body() {
    const answer = await generate(marker() + 'x'.repeat(LARGE_LETTERS));
    assert(answer.text.length > LARGE_LETTERS, `${answer.text.length} letters came back`);
  },

  // In one piece and in several; and a guardrail reads what is text.
  async uploads() {
    const config = { mimeType: 'text/plain', displayName: marker() };
    const upload = (text) => files.upload({ file: new Blob([text], { type: 'text/plain' }), config });
    for (const length of [10, UPLOADED_BYTES]) {
      const file = await upload('a b c d e\n'.repeat(length / 10));
      assert.deepEqual([file.sizeBytes, file.displayName], [String(length), config.displayName]);
    }
    const error = await refusal(ApiError, () => upload(checks.INJECTION));
    assert.equal(error.status, 400);
    assert.match(error.message, /the upload was blocked by a guardrail/);
  },
});
