"""Render chats with transformers into chat.json, which tests/it/text.rs compares with.

    pip install transformers && python make_chat_goldens.py

The templates are written here in the formats that the models' makers document; the last ones use every feature of
jinja2 and Python that templates on the hub are known to use. `strftime_now` stands still at 26 July 2024.
"""
import datetime
import json
import os

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = 1721952000


class Standing(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = Standing

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)

MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('After the optional system message, roles must alternate') }}{% endif %}
{% if message['role'] == 'user' %}
    {{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
    {{- ' ' + message['content'] + eos_token }}
{%- else %}
    {{- raise_exception('Only user and assistant roles are supported!') }}
{%- endif %}
{% endfor %}
"""

LLAMA_3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("This model only supports single tool-calls at once!") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN_2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN_3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

WHITESPACE = """  {# a comment, {% not a tag %} #}
<s>
  {% for message in messages %}
\t{% if loop.first -%}
    first:
    {%+ endif %}
 {{ message.role }}: {{ message.content }}
    {%- if not loop.last %} | {% endif +%}
  {%- generation -%}
    <{{ message.content | length }}>
  {% endgeneration %}

{% endfor %}
{% raw %}{{ raw }}{% endraw %}
{%- if add_generation_prompt %}

end
{% endif %}

"""

PYTHON = """{%- macro shout(text, mark='!') -%}{{ text | upper ~ mark * 2 }}{%- endmacro -%}
{%- set ns = namespace(seen=[], n=0) -%}
{%- for message in messages if message.role != 'skip' -%}
  {%- if loop.index > 4 %}{% break %}{% endif -%}
  {%- if message.content == '' %}{% continue %}{% endif -%}
  {%- set ns.n = ns.n + 1 -%}
  {%- set ns.seen = ns.seen + [message.role] -%}
  {{ loop.index }}/{{ loop.length }}/{{ loop.revindex0 }}/{{ loop.cycle('a', 'b') }}
  {{- ' ' + shout(message.role) + shout(mark='?', text='x') }}
  {{ message | tojson }} {{ message | tojson(indent=2) }} {{ message.get('content', 'no') | tojson }}
  {%- for key, value in message.items() %} {{ key }}={{ value[:3] }};{{ value[-2:] }};{{ value[::-1] }}{% endfor %}
  {{ message.content.strip() }}|{{ message.content.title() }}|{{ message.content | capitalize }}|{{ message.content | trim | length }}
  {{ message.content.split() }} {{ message.content.split(' ', 1) }} {{ message.content.replace('a', 'b').upper() }}
  {{ message.content.lstrip('\\n ') }} {{ 'a' in message.content }} {{ message.content is string }} {{ message is mapping }}
  {{ message.content is iterable }} {{ message.content is sequence }} {{ message.missing is defined }} {{ message.missing }}
  {{ loop.previtem.role if loop.previtem is defined else 'none before' }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }}
{% endfor -%}
{{ ns.seen | join(', ') }} {{ ns.n }} {{ ns.seen }} {{ {'a': 1, 'b': none, 'c': [true, 1.5, 'it\\'s']} }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}
{{ messages | rejectattr('role', 'equalto', 'user') | list | first is defined }} {{ (messages | last).role }}
{{ none }} {{ true }} {{ False }} {{ 1.0 }} {{ 'x' if false }} {{ tools is none }} {{ documents is defined }} {{ nothing is defined }}
{{ '%s-%d' % ('a', 3) if false else 'ok' }} {{ ['b', 'a'] | sort | join }} {{ range(3) | list }} {{ "a" "b" }} {{ 'a\\tb' }}
{{ dict(a=1)['a'] }} {{ [1, 2, 3] | sum }} {{ 'abc' | replace('b', '') }} {{ ' x ' | trim }} {{ [[1, 2], [3]] | tojson }}
{%- if bos_token is defined and bos_token %} {{ bos_token }}{% endif %}{{ pad_token }}
"""

CHATS = [
    [("user", "What is the capital of France?")],
    [("system", "You are terse."), ("user", "Name three colours.")],
    [("user", "Hi"), ("assistant", "  Hello! How can I help?\n"), ("user", " Tell me a joke. ")],
    [("system", "Antworte auf Deutsch."), ("user", "Wie heißt die Hauptstadt?"), ("assistant", "Berlin, natürlich."),
     ("user", "Und \"<|im_end|>\"?\r\n\tZeile {{ zwei }} \\ 😀"), ("assistant", "<think>\nEin\nGedanke\n</think>\n\nAuch Berlin.")],
    [("user", "a b  c\n"), ("user", "again")],
    [("assistant", "I begin."), ("tool", "result"), ("tool", "more"), ("user", "")],
    [("system", "only a system message")],
]

TEMPLATES = [
    ("llama-2", LLAMA_2, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    ("mistral", MISTRAL, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    ("llama-3", LLAMA_3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    ("qwen-2", QWEN_2, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    ("qwen-3", QWEN_3, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    ("whitespace", WHITESPACE, {}),
    ("whitespace-crlf", WHITESPACE.replace("\n", "\r\n"), {}),
    ("python", PYTHON, {"bos_token": "<s>"}),
]


def render(source, tokens, messages, add_generation_prompt):
    try:
        (text,), _ = chat_template_utils.render_jinja_template(
            conversations=[messages], chat_template=source, add_generation_prompt=add_generation_prompt, **tokens)
        return {"rendered": text}
    except jinja2.exceptions.TemplateError as error:
        return {"refused": str(error)}


def main():
    templates = []
    for name, source, tokens in TEMPLATES:
        cases = []
        for chat in CHATS:
            messages = [{"role": role, "content": content} for role, content in chat]
            for generation in (False, True):
                cases.append({"messages": messages, "add_generation_prompt": generation,
                              **render(source, tokens, messages, generation)})
        templates.append({"name": name, "source": source, "special_tokens": tokens, "cases": cases})
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat.json")
    about = f"made by make_chat_goldens.py with transformers {transformers.__version__}, jinja2 {jinja2.__version__}"
    with open(out, "w", encoding="utf-8") as f:
        json.dump({"about": about, "now": NOW, "templates": templates}, f, ensure_ascii=False, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
