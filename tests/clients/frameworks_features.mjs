// What openai, LangChain, the Vercel AI SDK and @google/generative-ai can do, through Chaperone: each feature at both
// bases.

import assert from 'node:assert/strict';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { GoogleGenerativeAI } from '@google/generative-ai';
import { AIMessage, HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages';
import { ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings } from '@langchain/google-genai';
import { embedMany, generateText, jsonSchema, Output, streamText, tool } from 'ai';
import OpenAI from 'openai';
import * as checks from './checks.mjs';
import { BASES, INJECTION, MODEL, SAY_BAD_ANSWER, marker } from './checks.mjs';

const LARGE_LETTERS = 4_000_000;
const IMAGE = Buffer.alloc(16_384, 7).toString('base64');
const PARAMETERS = { type: 'object', properties: { town: { type: 'string' } }, required: ['town'] };
const FUNCTION = { name: 'weather', description: 'The sky now.', parameters: PARAMETERS };
const CALLED = { 'x-simulate': 'call=weather' };
const JSON_ANSWER = { 'x-simulate': `say=${Buffer.from('{"town": "Ulm"}').toString('base64url')}` };
const FAILED = { 'x-simulate': 'status=503' };
const SLOW = { 'x-simulate': 'gap_ms=50,chunk=4' };
const EMBEDDINGS = 'gemini-embedding-001';

// Each is made for a base, asks with turns of OpenAI's form, `{ role, content }`, and gives texts, in the ways of its
// SDK.
const clients = {
  openai: (base) => ({
    base,
    sdk: new OpenAI({
      apiKey: checks.API_KEY,
      baseURL: `${base.url}/v1beta/openai/`,
      defaultHeaders: base.headers,
      timeout: checks.TIMEOUT_MS,
      maxRetries: 0,
    }),
    complete(messages, headers, body) {
      return this.sdk.chat.completions.create({ model: MODEL, messages, ...body }, { headers });
    },
    async ask(turns, headers) {
      return (await this.complete(turns, headers)).choices[0].message.content;
    },
    async finish(turns, headers) {
      const [choice] = (await this.complete(turns, headers)).choices;
      return [choice.message.content, choice.finish_reason];
    },
    async *stream(turns, headers) {
      const chunks = await this.complete(turns, headers, { stream: true });
      for await (const chunk of chunks) yield chunk.choices[0]?.delta?.content ?? '';
    },
    async call(turns) {
      const tools = [{ type: 'function', function: FUNCTION }];
      const { message } = (await this.complete(turns, CALLED, { tools })).choices[0];
      const called = message.tool_calls[0].function;
      return [called.name, JSON.parse(called.arguments)];
    },
    async structured(turns) {
      const schema = { type: 'json_schema', json_schema: { name: 'place', schema: PARAMETERS } };
      const answer = await this.complete(turns, JSON_ANSWER, { response_format: schema });
      return JSON.parse(answer.choices[0].message.content);
    },
    image: imageOfOpenai,
    async embed(input) {
      return (await this.sdk.embeddings.create({ model: EMBEDDINGS, input })).data.map((one) => one.embedding);
    },
    async models() {
      const names = [];
      for await (const one of this.sdk.models.list()) names.push(one.id);
      return names;
    },
  }),

  langchain: (base) => ({
    base,
    model(headers, more) {
      const customHeaders = { ...base.headers, ...headers };
      const common = { model: MODEL, apiKey: checks.API_KEY, baseUrl: base.url, maxRetries: 0 };
      return new ChatGoogleGenerativeAI({ ...common, customHeaders, ...more });
    },
    messages: (turns) => turns.map((turn) => {
      if (turn.role === 'tool') {
        return new ToolMessage({ content: turn.content, tool_call_id: turn.tool_call_id, name: 'weather' });
      }
      if (turn.tool_calls) {
        const [{ id, function: called }] = turn.tool_calls;
        const call = { id, name: called.name, args: JSON.parse(called.arguments), type: 'tool_call' };
        return new AIMessage({ content: '', tool_calls: [call] });
      }
      const kinds = { user: HumanMessage, assistant: AIMessage, system: SystemMessage };
      return new kinds[turn.role](typeof turn.content === 'string' ? turn.content : { content: turn.content });
    }),
    async ask(turns, headers) {
      return (await this.model(headers).invoke(this.messages(turns))).text;
    },
    // It makes an error of an answer without content.
    async finish(turns, headers) {
      const { text } = await this.model(headers).invoke(this.messages(turns));
      return [text, 'stop'];
    },
    async *stream(turns, headers, signal) {
      for await (const chunk of await this.model(headers).stream(this.messages(turns), { signal })) yield chunk.text;
    },
    async call(turns) {
      const model = this.model(CALLED).bindTools([{ type: 'function', function: FUNCTION }]);
      const [called] = (await model.invoke(this.messages(turns))).tool_calls;
      return [called.name, called.args];
    },
    structured(turns) {
      const model = this.model(JSON_ANSWER).withStructuredOutput(PARAMETERS, { method: 'jsonSchema' });
      return model.invoke(this.messages(turns));
    },
    image: imageOfOpenai,
    embed: (texts) =>
      new GoogleGenerativeAIEmbeddings({ model: EMBEDDINGS, apiKey: checks.API_KEY, baseUrl: base.url })
        .embedDocuments(texts),
  }),

  vercel: (base) => ({
    base,
    google: createGoogleGenerativeAI({
      apiKey: checks.API_KEY,
      baseURL: `${base.url}/v1beta`,
      headers: base.headers,
    }),
    request(turns, headers, more) {
      const system = turns.find((turn) => turn.role === 'system')?.content;
      const messages = turns.filter((turn) => turn.role !== 'system').map((turn) => {
        const named = { toolCallId: turn.tool_call_id ?? turn.tool_calls?.[0].id, toolName: 'weather' };
        if (turn.role === 'tool') {
          const output = { type: 'json', value: JSON.parse(turn.content) };
          return { role: 'tool', content: [{ type: 'tool-result', ...named, output }] };
        }
        if (turn.tool_calls) {
          const input = JSON.parse(turn.tool_calls[0].function.arguments);
          return { role: 'assistant', content: [{ type: 'tool-call', ...named, input }] };
        }
        return turn;
      });
      const model = this.google(MODEL);
      return { model, system, messages, headers, maxRetries: 0, ...more };
    },
    async ask(turns, headers) {
      return (await generateText(this.request(turns, headers))).text;
    },
    async finish(turns, headers) {
      const { text, finishReason } = await generateText(this.request(turns, headers));
      return [text, finishReason.replace('-', '_')];
    },
    async *stream(turns, headers, abortSignal) {
      yield* streamText(this.request(turns, headers, { abortSignal, onError() {} })).textStream;
    },
    async call(turns) {
      const weather = tool({ description: FUNCTION.description, inputSchema: jsonSchema(PARAMETERS) });
      const [called] = (await generateText(this.request(turns, CALLED, { tools: { weather } }))).toolCalls;
      return [called.toolName, called.input];
    },
    async structured(turns) {
      const output = Output.object({ schema: jsonSchema(PARAMETERS) });
      return (await generateText(this.request(turns, JSON_ANSWER, { output }))).output;
    },
    image: (text) => [
      { type: 'text', text },
      { type: 'image', image: IMAGE, mediaType: 'image/png' },
    ],
    async embed(values) {
      const model = this.google.textEmbedding(EMBEDDINGS);
      return (await embedMany({ model, values })).embeddings;
    },
  }),

  retired: (base) => ({
    base,
    model(headers, more) {
      const customHeaders = { ...base.headers, ...headers };
      const options = { baseUrl: base.url, customHeaders, timeout: checks.TIMEOUT_MS };
      return new GoogleGenerativeAI(checks.API_KEY).getGenerativeModel({ model: MODEL, ...more }, options);
    },
    request(turns) {
      const system = turns.find((turn) => turn.role === 'system')?.content;
      const contents = turns.filter((turn) => turn.role !== 'system').map((turn) => {
        const role = turn.role === 'assistant' ? 'model' : 'user';
        if (turn.role === 'tool') {
          const functionResponse = { name: 'weather', response: JSON.parse(turn.content) };
          return { role: 'function', parts: [{ functionResponse }] };
        }
        if (turn.tool_calls) {
          const called = turn.tool_calls[0].function;
          const functionCall = { name: called.name, args: JSON.parse(called.arguments) };
          return { role, parts: [{ functionCall }] };
        }
        return { role, parts: typeof turn.content === 'string' ? [{ text: turn.content }] : turn.content };
      });
      return { contents, ...(system && { systemInstruction: system }) };
    },
    // What follows earlier turns is said in a chat.
    async ask(turns, headers) {
      const request = this.request(turns);
      if (request.contents.length === 1) return (await this.model(headers).generateContent(request)).response.text();
      const last = request.contents.pop();
      const chat = this.model(headers).startChat({ history: request.contents });
      return (await chat.sendMessage(last.parts)).response.text();
    },
    async finish(turns, headers) {
      const { response } = await this.model(headers).generateContent(this.request(turns));
      const blocked = response.promptFeedback?.blockReason || response.candidates[0].finishReason === 'SAFETY';
      return blocked ? ['', 'content_filter'] : [response.text(), 'stop'];
    },
    async *stream(turns, headers, signal) {
      const { stream, response } = await this.model(headers).generateContentStream(this.request(turns), { signal });
      response.catch(() => {});
      for await (const chunk of stream) yield chunk.text();
    },
    async call(turns) {
      const tools = [{ functionDeclarations: [FUNCTION] }];
      const { response } = await this.model(CALLED, { tools }).generateContent(this.request(turns));
      const [called] = response.functionCalls();
      return [called.name, called.args];
    },
    async structured(turns) {
      const generationConfig = { responseMimeType: 'application/json', responseSchema: PARAMETERS };
      const model = this.model(JSON_ANSWER, { generationConfig });
      return JSON.parse((await model.generateContent(this.request(turns))).response.text());
    },
    image: (text) => [{ text }, { inlineData: { mimeType: 'image/png', data: IMAGE } }],
    async embed(texts) {
      const model = this.model({}, { model: EMBEDDINGS });
      const requests = texts.map((text) => ({ content: { role: 'user', parts: [{ text }] } }));
      return (await model.batchEmbedContents({ requests })).embeddings.map((one) => one.values);
    },
    async count(text) {
      return (await this.model().countTokens(text)).totalTokens;
    },
  }),
};

function imageOfOpenai(text) {
  return [
    { type: 'text', text },
    { type: 'image_url', image_url: { url: `data:image/png;base64,${IMAGE}` } },
  ];
}

const user = (content) => ({ role: 'user', content });
// In either dialect.
const turnsOf = (body) => body.contents ?? body.messages;
const isBlock = (error) => /content_filter|PROHIBITED_CONTENT|SAFETY/.test(`${error.code} ${error}`);

/** What a guardrail stopped is an empty answer with its reason, or an error that tells it. */
async function checkFiltered(finished) {
  const [text, reason] = await finished.catch((error) => {
    assert(isBlock(error), String(error));
    return ['', 'content_filter'];
  });
  assert.deepEqual([text || '', reason], ['', 'content_filter']);
}

/** All that a stream gives before its end, or before the error that an SDK makes of what a guardrail stopped. */
async function textOf(stream) {
  let text = '';
  try {
    for await (const piece of stream) text += piece;
  } catch (error) {
    assert(isBlock(error), String(error));
  }
  return text;
}

// What is large comes last, because every look at what was sent reads all that was sent before.
const features = {
  async plain(client) {
    const mark = marker();
    client.base.checkEcho(await client.ask([user(mark)]), mark);
    await client.base.sent(mark);
  },

  async streamed(client) {
    const mark = marker();
    const prompt = `${mark} ${'of sea and wind. '.repeat(20)}`;
    const pieces = [];
    for await (const piece of client.stream([user(prompt)])) if (piece) pieces.push(piece);
    client.base.checkEcho(pieces.join(''), prompt);
    await client.base.sent(mark);
    assert(pieces.length > 1, 'the answer came in one piece');
  },

  async chat_over_three_turns(client) {
    const turns = [];
    for (let turn = 0; turn < 3; turn += 1) {
      const mark = marker();
      turns.push(user(`Turn of ${mark}`));
      const answer = await client.ask(turns);
      client.base.checkEcho(answer, `Turn of ${mark}`);
      const sent = turnsOf(await client.base.sent(mark));
      const own = sent.filter((one) => JSON.stringify(one).includes('Turn of'));
      assert.equal(own.length, turns.length, 'the history is not complete');
      turns.push({ role: 'assistant', content: answer });
    }
  },

  // A template's takes the place of the application's.
  async system_instruction(client) {
    const mark = marker();
    const answer = await client.ask([{ role: 'system', content: 'Be brief.' }, user(mark)]);
    assert(answer.startsWith(`[system: ${client.base.system ?? 'Be brief.'}`), answer);
    const sent = JSON.stringify(await client.base.sent(mark));
    assert.equal(sent.includes('Be brief.'), !client.base.system, 'both system instructions went upstream, or none');
  },

  async json_schema(client) {
    const mark = marker();
    assert.deepEqual(await client.structured([user(mark)]), { town: 'Ulm' });
    assert.match(JSON.stringify(await client.base.sent(mark)), /town/, 'the schema did not reach the model');
  },

  async function_called(client) {
    const mark = marker();
    assert.deepEqual(await client.call([user(mark)]), ['weather', { town: 'Ulm' }]);
    assert.match(JSON.stringify((await client.base.sent(mark)).tools), /weather/);
  },

  // The call and its result go back to the model.
  async function_result(client) {
    const mark = marker();
    const called = { name: 'weather', arguments: '{"town": "Ulm"}' };
    const tool_calls = [{ id: 'call_1', type: 'function', function: called }];
    const result = { role: 'tool', tool_call_id: 'call_1', content: '{"sky": "clear"}' };
    await client.ask([user(mark), { role: 'assistant', content: null, tool_calls }, result]);
    const sent = JSON.stringify(turnsOf(await client.base.sent(mark)));
    for (const word of ['weather', 'Ulm', 'clear']) assert(sent.includes(word), sent);
  },

  async inline_image(client) {
    const mark = marker();
    await client.ask([user(client.image(mark))]);
    const sent = JSON.stringify(turnsOf(await client.base.sent(mark)));
    assert(sent.includes(IMAGE), 'the image did not arrive as it was sent');
  },

  async embeddings(client) {
    const mark = marker();
    const vectors = await client.embed([mark, 'two']);
    assert(vectors.length === 2 && vectors.every((one) => one.length > 0), JSON.stringify(vectors));
    assert(await checks.sent(mark), 'the text did not reach the model');
  },

  async count_tokens(client) {
    const mark = marker();
    client.base.checkCount(await client.count(mark), mark);
    await client.base.sent(mark);
  },

  async models_list(client) {
    const names = await client.models();
    assert(names.some((name) => name.endsWith(`/${MODEL}`)), `received [${names}]`);
  },

  async an_error(client) {
    await assert.rejects(client.ask([user(marker())], FAILED), (error) => {
      assert.match(`${error} ${error.status} ${error.statusCode}`, /503/);
      return true;
    });
  },

  async blocked_prompt(client) {
    const mark = marker();
    const turns = [user(`${mark} ${INJECTION}`)];
    await checkFiltered(client.finish(turns));
    assert.equal(await textOf(client.stream(turns)), '');
    assert.equal(await checks.sent(mark), undefined, 'the blocked prompt reached the model');
  },

  async blocked_answer(client) {
    const mark = marker();
    await checkFiltered(client.finish([user(`Tell of a town, ${mark}`)], SAY_BAD_ANSWER));
    await client.base.sent(mark);
  },

  async blocked_answer_streamed(client) {
    const mark = marker();
    checks.onlyGoodBeginning(await textOf(client.stream([user(`Tell of a town, ${mark}`)], SAY_BAD_ANSWER)));
    await client.base.sent(mark);
  },

  async cancelled(client) {
    const before = await checks.left();
    const stop = new AbortController();
    const turns = [user(`${marker()} ${'of sea and wind. '.repeat(40)}`)];
    const stream = client.stream(turns, SLOW, stop.signal);
    await stream.next();
    // Of one that is aborted the retired SDK keeps a promise that nobody can catch.
    process.once('unhandledRejection', () => {});
    stop.abort();
    await stream.return().catch(() => {});
    const hasLeft = async () => [...(await checks.left())].some((id) => !before.has(id));
    await checks.eventually(hasLeft, 'the call is not recorded as left');
  },

  async large_body(client) {
    const prompt = marker() + 'x'.repeat(LARGE_LETTERS);
    client.base.checkEcho(await client.ask([user(prompt)]), prompt);
  },
};

// What these have no call for. Tokens LangChain counts by itself, without asking anybody.
const WITHOUT = {
  count_tokens: ['openai', 'langchain', 'vercel'],
  models_list: ['langchain', 'vercel', 'retired'],
};

const all = {};
for (const [feature, works] of Object.entries(features)) {
  for (const [name, client] of Object.entries(clients)) {
    if (WITHOUT[feature]?.includes(name)) continue;
    for (const [place, base] of Object.entries(BASES)) {
      all[[name, place, feature].filter(Boolean).join('_')] = () => works(client(base));
    }
  }
}
await checks.run(all);
