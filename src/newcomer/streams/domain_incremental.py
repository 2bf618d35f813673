"""Domain-incremental stream: the same classes arrive in one domain after the other."""

from collections.abc import Iterable, Iterator, Sequence

from newcomer.data.class_names import class_names
from newcomer.data.examples import Examples
from newcomer.errors import StreamError, nearest
from newcomer.seeds import shuffled
from newcomer.settings import Json
from newcomer.streams.draws import EvalSplit, Key, draw_parts, drawn_classes, named_classes, require_trained
from newcomer.streams.stage import Stage


class DomainIncremental:
    """Stage t trains on all classes in domain t and evaluates on the domains so far, one by one.

    No class is new after the first stage, so a learner adapts no weight there: it adds to what it keeps of each class. A trained
    linear head (`head = "linear"`) keeps nothing that this would change. Examples say their domain (`Examples.domains`); it is used
    for this order alone, and no domain is told or asked in a prediction.

    - `domains`: which take part, by name, in this order; by default all, in an order drawn from the seed.
    - `classes`: how many classes take part, drawn from the seed, or which, by name or pattern; all by default.
    - `complete`: every domain must have every class. False: domains after the first may lack some in training, and each may in
      evaluation.
    - `train_per_class`, `eval_per_class`: at most so many examples of each class in each domain, drawn from the seed; all by
      default.
    - `eval_split`: 'test' or 'validation'; the latter is held out from the training examples, for model selection.
    - `joint`: one stage that trains on all domains and is evaluated on each: the joint-training upper bound.

    Raises StreamError for examples without domains, a single domain, an unknown one, one without examples, a class that a domain
    lacks, and a test class that is never trained on.
    """

    def __init__(
        self,
        train: Examples,
        test: Examples,
        *,
        domains: list[str] | None = None,
        classes: int | list[str] | None = None,
        complete: bool = True,
        train_per_class: int | None = None,
        eval_per_class: int | None = None,
        eval_split: EvalSplit = "test",
        joint: bool = False,
        seed: int = 0,
    ) -> None:
        for examples, part in ((train, "training"), (test, "test")):
            if not examples.domains and (part == "training" or eval_split == "test"):
                raise StreamError(
                    f"the {part} examples have no domains; take data that has some (domain-folder, domainnet), or give "
                    "Examples(inputs, labels, domains=…)"
                )
        if domains is None:
            require_trained(train.domains, test.domains, "domain")
        self.domains = _ordered(domains, train, seed)
        known = sorted(_classes(train, self.domains))
        require_trained(known, _classes(test, self.domains))
        self.classes = (
            named_classes(classes, known) if isinstance(classes, list) else drawn_classes(classes, known, seed)
        )
        self.joint = joint
        self._train, self._eval = draw_parts(
            train,
            test,
            lambda examples: zip(examples.domains, examples.labels, strict=True) if examples.domains else (),
            train_per_class=train_per_class,
            eval_per_class=eval_per_class,
            eval_split=eval_split,
            seed=seed,
        )
        self._require_examples(complete, eval_split)

    def __len__(self) -> int:
        return 1 if self.joint else len(self.domains)

    def __iter__(self) -> Iterator[Stage[Examples, Examples]]:
        eval_sets = {domain: self._eval.of(self._keys([domain])) for domain in self.domains}
        if self.joint:
            yield Stage("all domains", self._train.of(self._keys(self.domains)), eval_sets)
            return
        for t, domain in enumerate(self.domains):
            train = self._train.of(self._keys([domain]))
            yield Stage(domain, train, {seen: eval_sets[seen] for seen in self.domains[: t + 1]})

    def info(self) -> dict[str, Json]:
        """The domains in order, the classes, and how many examples they are trained and evaluated on."""
        keys = self._keys(self.domains)
        return {
            "domains": self.domains,
            "classes": self.classes,
            "train_examples": len(self._train.of(keys)),
            "eval_examples": len(self._eval.of(keys)),
        }

    def _keys(self, domains: Iterable[str]) -> list[Key]:
        return [(domain, name) for domain in domains for name in self.classes]

    def _require_examples(self, complete: bool, eval_split: EvalSplit) -> None:
        for domain in self.domains:
            for drawn, kind in ((self._train, "training"), (self._eval, eval_split)):
                lacking = [name for name in self.classes if not drawn.count((domain, name))]
                if len(lacking) == len(self.classes):
                    raise StreamError(
                        f"domain '{domain}' has no {kind} examples; add some, or name the domains that take part in stream.domains"
                    )
                if lacking and domain == self.domains[0] and kind == "training":
                    raise StreamError(
                        f"class '{lacking[0]}' has no training examples in domain '{domain}', the first; add some, begin with "
                        "another domain (stream.domains), or leave the class out (stream.classes)"
                    )
                if lacking and complete:
                    raise StreamError(
                        f"class '{lacking[0]}' has no {kind} examples in domain '{domain}'; add some, leave the class out "
                        "(stream.classes), or set stream.complete to false"
                    )


def _ordered(domains: list[str] | None, train: Examples, seed: int) -> list[str]:
    """The domains that take part, in order."""
    known = sorted(set(train.domains))
    if domains is None:
        found = [known[i] for i in shuffled(len(known), seed, "stream", "domain order")]
    else:
        found = class_names(domains, "stream.domains")
    for domain in found:
        if domain not in known:
            raise StreamError(
                f"stream.domains names domain '{domain}', which has no training examples; {nearest(domain, known)}"
            )
        if found.count(domain) > 1:
            raise StreamError(f"domain '{domain}' occurs {found.count(domain)} times in stream.domains; name it once")
    if not found:
        raise StreamError("stream.domains is empty; name the domains in order, or leave it out for all")
    if len(found) == 1:
        raise StreamError(
            f"there is a single domain, '{found[0]}'; give two or more, or take the class-incremental stream"
        )
    return found


def _classes(examples: Examples, domains: Sequence[str]) -> set[str]:
    """The classes that occur in these domains."""
    return {label for domain, label in zip(examples.domains, examples.labels, strict=False) if domain in domains}
