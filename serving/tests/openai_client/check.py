"""The official openai package against a running host: what its users do, and what they see when it goes wrong.

Usage: python check.py BASE_URL SMALL_BASE_URL [--upstream | --metered]
The second host takes two requests at a time. With --upstream both stand in front of another server, which knows no
log-probabilities for them, reuses no prompts, and does not promise the same answer whatever else it is doing. With
--metered both bill: HALLMARK_TEST_API_KEY is a customer's.
Needs: pip install openai
"""

import asyncio
import math
import os
import sys
import time

import openai
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

MODEL = "bytes"
PROMPT = "First Citizen:"
UPSTREAM = "--upstream" in sys.argv
METERED = "--metered" in sys.argv
KEY = os.environ.get("HALLMARK_TEST_API_KEY", "none")
MESSAGES = [{"role": "user", "content": "Who are you?"}]


def chat(client):
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=20, seed=1)
    assert whole.object == "chat.completion" and whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content and whole.choices[0].finish_reason in ("stop", "length")
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and 0 < usage.completion_tokens <= 20
    assert whole._request_id.startswith("req_")

    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=20, seed=1, stream=True, stream_options=options
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    last = chunks[-1]
    assert last.choices == []
    # A metered host reuses what a customer's own requests left.
    if METERED:
        assert last.usage.prompt_tokens_details.cached_tokens > 0
        last.usage.prompt_tokens_details = usage.prompt_tokens_details
    assert last.usage == usage
    assert all(chunk.usage is None for chunk in chunks[:-1])

    # The package's own accumulator of chunks, which takes only answers that end by themselves.
    fields = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 100, "seed": 1, "stop": "e"}
    with client.chat.completions.stream(**fields) as stream:
        for _ in stream:
            pass
        accumulated = stream.get_final_completion().choices[0]
    assert accumulated.finish_reason == "stop"
    assert accumulated.message.content == client.chat.completions.create(**fields).choices[0].message.content


def completion(client):
    whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, seed=1, stop=["\n\n"])
    assert whole.object == "text_completion"
    chunks = list(client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, seed=1, stop=["\n\n"], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    again = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, seed=1, stop="\n\n")
    assert again.choices[0].text == whole.choices[0].text


def choices(client):
    several = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, seed=1, n=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in several.choices}) == 4
    one = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, seed=1)
    assert one.choices[0].text == several.choices[0].text or UPSTREAM
    assert several.usage.prompt_tokens == one.usage.prompt_tokens
    texts = [""] * 4
    for chunk in client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, seed=1, n=4, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in several.choices] or UPSTREAM


def logprobs(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=8, seed=1, logprobs=True, top_logprobs=5
    )
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == answer.choices[0].message.content
    for entry in content:
        ranked = [alternative.logprob for alternative in entry.top_logprobs]
        assert len(ranked) == 5 and ranked == sorted(ranked, reverse=True)
        assert entry.logprob <= ranked[0] and sum(map(math.exp, ranked)) <= 1 + 1e-4
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, seed=1, logprobs=2)
    lists = answer.choices[0].logprobs
    assert "".join(lists.tokens) == answer.choices[0].text
    assert all(token in top for token, top in zip(lists.tokens, lists.top_logprobs, strict=True))
    assert lists.text_offset == [len("".join(lists.tokens[:index])) for index in range(len(lists.tokens))]


def adjustments(client):
    forced = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logit_bias={"300": 100})
    token = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1, temperature=0, logit_bias={"300": 100})
    assert forced.choices[0].text == token.choices[0].text * 5
    plain, penalised = (
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=40, temperature=0, frequency_penalty=penalty)
        for penalty in (0, 2)
    )
    assert plain.choices[0].text != penalised.choices[0].text


def cache(client):
    key = f"key {time.time_ns()}"
    ask = lambda: client.completions.create(
        model=MODEL, prompt=PROMPT * 8, max_tokens=1, seed=1, extra_body={"prompt_cache_key": key}
    )
    first, second = ask().usage, ask().usage
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens == first.prompt_tokens - 1


def errors(client):
    def fails(kind, **fields):
        try:
            client.chat.completions.create(**({"model": MODEL, "messages": MESSAGES} | fields))
        except kind as error:
            return error
        raise AssertionError(f"{fields} did not fail with {kind}")

    error = fails(openai.BadRequestError, temperature=3)
    assert (error.status_code, error.param, error.code) == (400, "temperature", "invalid_value")
    assert error.request_id.startswith("req_")
    assert fails(openai.NotFoundError, model="gpt-5").code == "model_not_found"
    assert fails(openai.BadRequestError, n=9).param == "n"
    assert fails(openai.BadRequestError, extra_body={"temprature": 1}).code == "unknown_parameter"
    assert fails(openai.BadRequestError, max_completion_tokens=100_000).code == "context_length_exceeded"
    assert [model.id for model in client.models.list()] == [MODEL] and client.models.retrieve(MODEL).id == MODEL


def bills(client, base_url):
    """Answers have statements; who pays nothing is told how to pay."""
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=5)
    statement = whole.model_extra["hallmark"]["statement"]["message"]
    assert (statement["promptTokens"], statement["completionTokens"]) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    fields = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 5, "stream": True}
    *others, last = client.chat.completions.create(**fields)
    assert last.model_extra["hallmark"]["statement_id"] and last.choices[0].finish_reason
    assert not any("hallmark" in chunk.model_extra for chunk in others)

    # The package sends a key of its own with every request, so an unknown one stands for none.
    stranger = OpenAI(base_url=base_url, api_key="hmk-unknown", max_retries=2)
    try:
        stranger.chat.completions.create(**fields)
        raise AssertionError("an unknown key was served")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"


def retries(base_url):
    """A full queue is 429 with Retry-After, which the package waits for."""
    waits = []
    hooks = {"response": [lambda response: waits.append((response.status_code, response.headers.get("retry-after")))]}
    http = DefaultHttpxClient(event_hooks=hooks)
    impatient = OpenAI(base_url=base_url, api_key=KEY, max_retries=0)
    patient = OpenAI(base_url=base_url, api_key=KEY, max_retries=60, http_client=http)
    # The end of a turn is forbidden, so that they last. What is not read keeps its place until it is closed.
    long = {"model": MODEL, "prompt": PROMPT, "max_tokens": 100 if UPSTREAM else 450, "stream": True, "logit_bias": {"2": -100}}
    with ThreadedStreams(impatient, long, 6) as streams:
        answer = patient.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2)
        assert answer.choices[0].text is not None
    assert streams.refused > 0, "two are accepted, the others are refused"
    assert waits[-1][0] == 200 and all(wait == (429, "1") for wait in waits[:-1]), waits


class ThreadedStreams:
    """Requests that begin at once and are read to their end."""

    def __init__(self, client, fields, count):
        import threading

        self.refused = 0
        self.begun = threading.Barrier(count + 1)
        self.threads = [threading.Thread(target=self._run, args=(client, fields)) for _ in range(count)]

    def _run(self, client, fields):
        self.begun.wait()
        try:
            for _ in client.completions.create(**fields):
                pass
        except openai.RateLimitError as error:
            assert error.code == "server_busy"
            self.refused += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.begun.wait()
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join()


async def tasks(base_url):
    """32 at once, whole and streamed, each with the answer that it gets alone."""
    client = AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0)

    async def ask(seed, stream):
        fields = {"model": MODEL, "prompt": f"{PROMPT} {seed}", "max_tokens": 16, "seed": seed}
        if not stream:
            return (await client.completions.create(**fields)).choices[0].text
        return "".join([chunk.choices[0].text async for chunk in await client.completions.create(**fields, stream=True)])

    alone = [await ask(seed, False) for seed in range(32)]
    for stream in (False, True):
        together = await asyncio.gather(*(ask(seed, stream) for seed in range(32)))
        assert together == alone or UPSTREAM and len(set(together)) == 32

    # Hanging up in the middle is no failure of the next request.
    stream = await client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=400, stream=True)
    await anext(aiter(stream))
    await stream.close()
    assert await ask(0, True) == alone[0]


def main():
    base_url, small_base_url = sys.argv[1:3]
    client = OpenAI(base_url=base_url, api_key=KEY, max_retries=0)
    for check in (chat, completion, choices, logprobs, adjustments, cache, errors):
        if UPSTREAM and check in (logprobs, cache) or METERED and check is cache:
            continue
        check(client)
        print(f"{check.__name__}: ok")
    if METERED:
        bills(client, base_url)
        print("bills: ok")
    retries(small_base_url)
    print("retries: ok")
    asyncio.run(tasks(base_url))
    print("tasks: ok")


main()
