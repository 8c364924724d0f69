#!/usr/bin/python3
"""Manual pages from the documentation comments of messaging.h.

usage: man.py 3 | 7      writes messaging.3 (the calls) or messaging.7 (the overview) to standard output
       man.py check      compares what is documented with what is there; says what differs
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = (ROOT / "messaging.h").read_text()
README = (ROOT / "README.md").read_text()
VERSION = re.search(r'MESSAGING_VERSION_STRING "([^"]+)"', HEADER).group(1)
BANNER = re.compile(r"^/\* ==== (.+?) =+(?: \*/)?$", re.M)


# ---- what the header says ----

def sections():
    """Title of each banner, with the text up to the next one."""
    found = list(BANNER.finditer(HEADER))
    ends = [m.start() for m in found[1:]] + [len(HEADER)]
    return {m.group(1): HEADER[m.end():end] for m, end in zip(found, ends)}


SECTION = sections()


def uncomment(text):
    """The lines of a comment without its decoration."""
    lines = [re.sub(r"^\s*\* ?", "", line) for line in re.sub(r"^/\*+ ?|\*/\s*$", "", text.strip()).splitlines()]
    return "\n".join(lines).strip("\n")


def banner_comment(title):
    """The comment that goes on below a banner."""
    return uncomment(SECTION[title].split("*/", 1)[0])


def prose_above(text, name):
    """The comment right above a definition."""
    comments = [m for m in re.finditer(r"/\*.*?\*/", text[:text.index(name)], re.S)]
    return uncomment(comments[-1].group())


def statuses():
    return re.findall(r'^  X\((\w+), "([^"]*)"\)', SECTION["Status codes"], re.M)


def stamped():
    """Name, result and parameters of each call that MESSAGING_MAKE defines, for the prefix bus and the type fact."""
    macro = re.sub(r"\s*\\\n\s*", " ", SECTION["MESSAGING_MAKE"])
    calls = {}
    for result, name, parameters in re.findall(r"(MESSAGING__CALL|MESSAGING__STAMP [\w ]+?) prefix##_(\w+)\(([^)]*)\)", macro):
        if name.startswith("_"):
            continue
        result = result.replace("MESSAGING__CALL", "messaging_status").replace("MESSAGING__STAMP ", "")
        parameters = parameters.replace("prefix##", "bus").replace("relay_type", "fact")
        calls["bus_" + name] = (result, [p.strip() for p in parameters.split(",")])
    return calls


def referenced():
    """The same as the reference documents them, and the text on each."""
    calls, name = {}, None
    for line in banner_comment("Reference of the stamped calls").splitlines():
        head = re.match(r"(?:(\w+) )?(bus_\w+)\(([^)]*)\)$", line)
        if head:
            name = head.group(2)
            calls[name] = (head.group(1) or "messaging_status", [p.strip() for p in head.group(3).split(",")], [])
        elif name:
            calls[name][2].append(line.strip())
    return {n: (r, p, " ".join(text).strip()) for n, (r, p, text) in calls.items()}


def struct_text(name):
    return re.search(r"typedef struct \{[^}]*\} " + name + ";", HEADER).group()


def struct(title, name):
    """Members of a struct in groups: (declarations, comment). A comment above belongs to all members up to the next blank line, one behind
    to its own member and those below that have none."""
    body = re.search(r"typedef struct \{([^}]*)\} " + name + ";", SECTION[title]).group(1)
    groups, above = [], False
    for token in re.finditer(r"/\*.*?\*/|\n[ \t]*(?=\n)|[^;/]+;", body, re.S):
        text, line = token.group().strip(), body[body.rfind("\n", 0, token.start()) + 1:token.start()]
        if not text:
            above = False
        elif not text.startswith("/*"):
            if groups and (above or (groups[-1][1] and "," not in text)):
                groups[-1][0].append(text)
            else:
                groups.append([[text], ""])
        else:
            text = " ".join(uncomment(text).split())
            if ";" not in line:
                above = True
                groups.append([[], text])
            elif groups[-1][1] and not above:
                groups.append([[groups[-1][0].pop()], text])
            else:
                groups[-1][1] = (groups[-1][1] + " " + text).strip()
    return groups


# ---- writing ----

def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def code(text):
    return ".PP\n.in +4n\n.EX\n" + escape(text.strip("\n")) + "\n.EE\n.in\n.PP\n"


def paragraphs(text):
    """Filled text; what is indented by four more is code, numbered items are items, a line on its own after a gap is what it is."""
    out, item, in_code = [], False, []
    for line in text.splitlines() + [""]:
        if line.startswith("    ") and not item:
            in_code.append(line[4:])
            continue
        if in_code and not line.strip():
            in_code.append("")
            continue
        if in_code:
            out.append(code("\n".join(in_code)).rstrip("\n"))
            in_code = []
        number = re.match(r"  (\d+\.) (.*)", line)
        name = re.match(r"  ((?:\w+ )*\w+)  +(.*)", line)
        if number or name:
            tag, rest = (number or name).groups()
            out += [".TP" if name else ".TP 4", escape(tag), escape(rest)]
            item = True
        elif not line.strip():
            item = False
            out.append(".PP")
        elif item and not line.startswith(" "):
            item = False
            out += [".PP", escape(line.strip())]
        else:
            out.append(escape(line.strip()))
    if in_code:
        out.append(code("\n".join(in_code)).rstrip("\n"))
    text = re.sub(r"(\.PP\n)+(?=\.PP|\.TP)", "", "\n".join(out) + "\n")
    return re.sub(r"^(\.PP\n)+|(\.PP\n)+$", "", text)


def tagged(tags, text):
    head = ".TP\n" + "\n.TQ\n".join("\\fB" + escape(t) + "\\fR" for t in tags)
    return head + "\n" + (escape(text) or "\\&") + "\n"


def title(number, description):
    return ('.\\" made by tests/man/man.py from messaging.h\n.TH MESSAGING %d "" "messaging %s"\n.SH NAME\nmessaging \\- %s\n'
            % (number, VERSION, escape(description)))


def finished(parts):
    text = re.sub(r"(\.PP\n)+(?=\.(?:PP|TP|SH|SS)\b)", "", "".join(parts))
    return re.sub(r"^(\.S[HS] .*\n)(\.PP\n)+", r"\1", text, flags=re.M)


def prototype(name, result, parameters):
    return result + ("" if result.endswith("*") else " ") + name + "(" + ", ".join(parameters) + ");"


def wrapped(text, width=74):
    """A prototype on several lines, continued behind its opening parenthesis where that fits."""
    lines, indent = [""], min(text.index("(") + 1, 30)
    for word in text.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(" " * indent + word)
        else:
            lines[-1] += (" " if lines[-1].strip() else "") + word
    return "\n".join(lines)


def declarations(name):
    """The declaration of a type as it stands, its comments left out."""
    found = re.search(r"typedef (?:struct|enum) \{[^}]*\} " + name + r";|typedef [^;{]*\b" + name + r"\b[^;{]*;",
                      SECTION["Message types"] + SECTION["Options"])
    return re.sub(r"\n +(?=\n|$)", "", re.sub(r" *//[^\n]*", "", re.sub(r" *\n? */\*.*?\*/", "", found.group(), flags=re.S)))


def lone_functions():
    """Declarations and comments of the functions that need no instance."""
    text = SECTION["Functions that need no instance"]
    for found in re.finditer(r"(/\*(?:(?!\*/).)*\*/)\nstatic inline ([^;]+);", text, re.S):
        yield found.group(2), uncomment(found.group(1))


def top():
    """The header's first comment: its first line, and the rest up to the table of contents."""
    lines = uncomment(HEADER[:HEADER.index("*/")]).strip().splitlines()
    rest = "\n".join(lines[1:])
    return lines[0].split(" - ", 1)[1], rest[:rest.index("\nContents")].strip("\n")


def page3():
    calls, reference = stamped(), referenced()
    out = [title(3, top()[0]), ".SH SYNOPSIS\n.nf\n.B #include <messaging.h>\n.PP\n"]
    out.append("\\fBMESSAGING_MAKE(bus, fact, fact_encode, fact_decode);\\fR\n.PP\n")
    for name, (result, parameters) in calls.items():
        out.append("\\fB" + escape(wrapped(prototype(name, result, parameters))) + "\\fR\n")
    out.append(".PP\n")
    for declaration, _ in lone_functions():
        out.append("\\fB" + escape(wrapped(declaration + ";")) + "\\fR\n")
    out.append(".fi\n.PP\nCompile with $(pkg\\-config \\-\\-cflags \\-\\-libs messaging).\n.SH DESCRIPTION\n")
    out.append(paragraphs(prose_above(SECTION["MESSAGING_MAKE"], "#define MESSAGING_MAKE")) + ".SH CALLS\n")
    lead = banner_comment("Reference of the stamped calls").split("\nbus_", 1)[0]
    out.append(paragraphs(lead))
    for name, (_, _, text) in reference.items():
        out.append(tagged([prototype(name, *calls[name])], text))
    out.append(".SH FUNCTIONS THAT NEED NO INSTANCE\n")
    for declaration, text in lone_functions():
        out.append(tagged([declaration], " ".join(text.split())))
    out.append(".SH RETURN VALUE\n")
    for name, text in statuses():
        out.append(tagged(["MESSAGING_" + name], text))
    out.append(".SH OPTIONS\n" + paragraphs(prose_above(SECTION["Options"], "typedef struct")))
    for members, text in struct("Options", "messaging_options"):
        out.append(tagged(members, text))
    out.append(".SH TYPES\n")
    kinds = r"^\} (messaging_\w+);|^typedef enum \{.*\} (messaging_\w+);|^typedef [\w ]+ (messaging_\w+)[;(]"
    types = ["".join(found) for found in re.findall(kinds, SECTION["Message types"] + SECTION["Options"], re.M)]
    for name in types:
        if not name.endswith(("_stats", "_options")):
            out.append(code(declarations(name)))
    out.append(".SH STATISTICS\n")
    for name in types:
        if name.endswith("_stats"):
            out.append(".SS " + name + "\n" + paragraphs(prose_above(SECTION["Message types"], struct_text(name))))
            out += [tagged(members, text) for members, text in struct("Message types", name)]
    return finished(out + [".SH SEE ALSO\n.BR messaging (7),\n.BR zmq (7)\n"])


def page7():
    headline, text = top()
    out = [title(7, headline), ".SH DESCRIPTION\n", paragraphs(text), ".SH REQUIREMENTS\n", paragraphs(banner_comment("Requirements"))]
    out.append(".SH CONFIGURATION\n" + paragraphs(banner_comment("Configuration")))
    out.append(code(re.sub(r"\n{3,}", "\n\n", SECTION["Configuration"].split("*/", 1)[1])))
    out.append(".SH VERSION\n" + code(SECTION["Version"]))
    out.append(".SH STATUSES\n" + paragraphs(banner_comment("Status codes")))
    for name, meaning in statuses():
        out.append(tagged(["MESSAGING_" + name], meaning))
    return finished(out + [".SH SEE ALSO\n.BR messaging (3),\n.BR zmq (7)\n"])


# ---- checking ----

def bare(parameter):
    """Type and name of a parameter; the name may be missing."""
    words = re.match(r"(.*?[\s*])(\w+)$", parameter)
    if words and words.group(1).strip() not in ("", "const") and words.group(2) not in ("int", "char"):
        return re.sub(r"\s+(?=\*)|\s+$", "", words.group(1)), words.group(2)
    return re.sub(r"\s+(?=\*)", "", parameter), ""


def check_reference():
    calls, reference = stamped(), referenced()
    for name in sorted(calls.keys() ^ reference.keys()):
        yield "%s is %s" % (name, "stamped and not in the reference" if name in calls else "in the reference and not stamped")
    for name in calls.keys() & reference.keys():
        (result, parameters), (said_result, said, text) = calls[name], reference[name]
        if not text:
            yield name + ": the reference says nothing about it"
        if said_result != result and name != "bus_batch_free":
            yield "%s: returns %s, the reference says %s" % (name, result, said_result)
        if len(parameters) != len(said):
            yield "%s: %d parameters, the reference has %d" % (name, len(parameters), len(said))
        for (there, there_name), (here, here_name) in zip(map(bare, parameters), map(bare, said)):
            if there != here or (here_name and here_name != there_name):
                yield "%s: parameter '%s %s', the reference says '%s %s'" % (name, there, there_name, here, here_name)


def names(groups):
    return {n for members, _ in groups for m in members for n in re.findall(r"(\w+)(?=,|;|\[)", m)}


def check_readme():
    said = set(re.findall(r"bus_\w+(?=\()", "\n".join(re.findall(r"^\| `.*", README, re.M))))
    for name in sorted(stamped().keys() - said):
        yield "README.md: the calls leave out " + name
    for name in sorted(said - stamped().keys()):
        yield "README.md: names %s, which does not exist" % name
    for chapter, there in (("Options", names(struct("Options", "messaging_options"))),
                           ("Statuses, and what to do", {name for name, _ in statuses()})):
        table = README.split("\n## " + chapter + "\n", 1)[1].split("\n## ", 1)[0]
        cells = re.findall(r"^\| (.*?) \|", table, re.M)
        said = {n for cell in cells for n in re.findall(r"`(\w+)`", cell)}
        for name in sorted(said ^ there):
            yield "README.md, %s: %s is %s" % (chapter, name, "missing" if name in there else "not in messaging.h")


def check_contents():
    listed = uncomment(HEADER[:HEADER.index("*/")]).split("\nContents\n", 1)[1].split("\n")
    listed = [line.strip() for line in listed if line.strip()]
    if listed != list(SECTION):
        yield "the table of contents is not the banners: %s" % ", ".join(sorted(set(listed) ^ set(SECTION)) or ["another order"])
    for kind, name in (("Options", "messaging_options"), ("Message types", "messaging_stats"), ("Message types", "messaging_worker_stats")):
        for members, text in struct(kind, name):
            if not text:
                yield "%s: nothing is said about %s" % (name, " ".join(members))


def main():
    if sys.argv[1:] == ["check"]:
        faults = list(check_reference()) + list(check_readme()) + list(check_contents())
        print("\n".join(faults) or "the documentation names what is there")
        sys.exit(1 if faults else 0)
    print({"3": page3, "7": page7}[sys.argv[1]](), end="")


if __name__ == "__main__":
    main()
