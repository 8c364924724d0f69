/* formula.h - a formula in conjunctive normal form: read from a DIMACS file or made here, and the check of a model. */
#ifndef PORTFOLIO_FORMULA_H
#define PORTFOLIO_FORMULA_H

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int variables, bits;   /* bits: of each number, in instances made here */
  uint64_t numbers[2];   /* which the model of such an instance stands for */
  size_t clauses;
  int *literals; /* each clause ends with a 0 */
  size_t size, capacity;
} formula;

static void add_literal(formula *f, int literal) {
  if (f->size == f->capacity) {
    f->capacity = f->capacity ? 2 * f->capacity : 1024;
    f->literals = realloc(f->literals, f->capacity * sizeof *f->literals);
    if (!f->literals) perror("formula"), exit(1);
  }
  f->literals[f->size++] = literal;
  f->clauses += literal == 0;
}

/* What is wrong with a line, and *at is where; or NULL. */
static const char *read_line(formula *f, const char **at, size_t *promised) {
  static const char blank[] = " \t\r\n";
  long variables, clauses;
  char *end, after;
  if (**at == 'c') return NULL;
  for (*at += strspn(*at, blank); **at; *at = end + strspn(end, blank)) {
    if (f->variables < 0) {
      if (sscanf(*at, "p cnf %ld %ld %c", &variables, &clauses, &after) != 2 || variables < 0 || clauses < 0)
        return "the header 'p cnf VARIABLES CLAUSES' was expected";
      if (variables > 10000000) return "there are more than 10000000 variables";
      f->variables = (int)variables, *promised = (size_t)clauses;
      return NULL;
    }
    const long literal = strtol(*at, &end, 10);
    if (end == *at || !strchr(blank, *end)) return "a literal was expected";
    if (literal > f->variables || literal < -f->variables) return "the literal is beyond the header's number of variables";
    if (f->clauses == *promised) return "there are more clauses than the header promised";
    add_literal(f, (int)literal);
  }
  return NULL;
}

/* False: what is wrong, and where (file, line, column), went to stderr. */
static bool formula_read(formula *f, const char *path) {
  *f = (formula){.variables = -1};
  FILE *file = fopen(path, "r");
  char *text = NULL;
  const char *at = NULL, *wrong = NULL;
  size_t room = 0, line = 0, promised = 0;
  for (ssize_t length; file && !wrong && (length = getline(&text, &room, file)) > 0 && *text != '%'; line++) { /* %: SATLIB's end */
    at = text;
    wrong = strlen(text) != (size_t)length ? "the line holds a zero byte" : read_line(f, &at, &promised);
  }
  if (wrong) fprintf(stderr, "%s:%zu:%td: %s\n", path, line, at - text + 1, wrong);
  else if (!file || ferror(file)) wrong = strerror(errno);
  else if (f->variables < 0) wrong = "the file ends before its header 'p cnf VARIABLES CLAUSES'";
  else if (f->size && f->literals[f->size - 1]) wrong = "the file ends within a clause (its 0 is missing)";
  else if (f->clauses < promised) wrong = "the file ends with fewer clauses than the header promised";
  if (wrong && !(line && at && *at)) fprintf(stderr, "%s:%zu: %s\n", path, line, wrong);
  if (file) fclose(file);
  free(text);
  return !wrong;
}

/* ---- instances made here ---- */

static uint64_t random_prime(uint64_t *state, int bits) {
  for (uint64_t n, d;;) {
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    n = *state >> (64 - bits) | (uint64_t)1 << (bits - 1) | 1;
    for (d = 3; d * d <= n && n % d;) d += 2;
    if (d * d > n) return n;
  }
}

#define ADD_CLAUSE(f, ...) add_clause(f, (const int[]){__VA_ARGS__, 0})
static void add_clause(formula *f, const int *literals) {
  do add_literal(f, *literals);
  while (*literals++);
}

/* A full adder: returns the sum's variable; the carry's is the next one. */
static int add_adder(formula *f, int a, int b, int c) {
  const int sum = f->variables + 1, carry = f->variables += 2;
  for (int i = 0; i < 8; i++) /* i: which inputs are true */
    ADD_CLAUSE(f, i & 1 ? -a : a, i & 2 ? -b : b, i & 4 ? -c : c, (i ^ i >> 1 ^ i >> 2) & 1 ? sum : -sum);
  for (int sign = -1; sign <= 1; sign += 2) {
    ADD_CLAUSE(f, sign * a, sign * b, -sign * carry);
    ADD_CLAUSE(f, sign * a, sign * c, -sign * carry);
    ADD_CLAUSE(f, sign * b, sign * c, -sign * carry);
  }
  return sum;
}

/* factor:BITS:SEED: which two numbers of BITS bits have this product (of two primes that the seed gives)? prime:BITS:SEED: the same
 * of a prime, so that there is no model. Variables 1 to BITS are one number, the next ones the other. False: it is no such name. */
static bool formula_make(formula *f, const char *name) {
  char kind[8] = "";
  int row[64], bits = 0;
  uint64_t seed = 0;
  if (sscanf(name, "%7[a-z]:%d:%" SCNu64, kind, &bits, &seed) != 3 || bits < 2 || bits > 25) return false;
  const bool prime = !strcmp(kind, "prime");
  uint64_t state = seed, n = random_prime(&state, prime ? 2 * bits : bits);
  if (!prime) n *= random_prime(&state, bits);
  printf("c seed %" PRIu64 ": which numbers of %d bits have the product %" PRIu64 "%s?\n", seed, bits, n, prime ? ", a prime" : "");
  const int zero = f->variables = 2 * bits + 1;
  f->bits = bits;
  ADD_CLAUSE(f, -zero);
  for (int i = 0; i < 2 * bits; i++) row[i] = zero;
  for (int i = 0; i < bits; i++) { /* an array multiplier, row by row */
    int carry = zero;
    for (int j = 0; j < bits; j++, carry++) {
      const int a = 1 + i, b = 1 + bits + j, both = ++f->variables;
      ADD_CLAUSE(f, a, -both);
      ADD_CLAUSE(f, b, -both);
      ADD_CLAUSE(f, -a, -b, both);
      carry = row[i + j] = add_adder(f, both, row[i + j], carry);
    }
    row[i + bits] = carry;
  }
  for (int i = 0; i < 2 * bits; i++) ADD_CLAUSE(f, n >> i & 1 ? row[i] : -row[i]);
  return true;
}

/* Whether the model, a byte for each variable, satisfies every clause. */
static bool formula_check(formula *f, const char *model) {
  for (size_t i = 0; i < f->size; i++) {
    bool satisfied = false;
    for (; f->literals[i]; i++) satisfied |= (model[abs(f->literals[i]) - 1] != 0) == (f->literals[i] > 0);
    if (!satisfied) return false;
  }
  memset(f->numbers, 0, sizeof f->numbers);
  for (int i = 0; i < 2 * f->bits; i++) f->numbers[i / f->bits] |= (uint64_t)(model[i] != 0) << i % f->bits;
  return true;
}

#endif
