# What shells do all day: counting, tests, pattern matching, string operations, function calls. $1: how often.
classify() {
  case $1 in
    *[02468]) kind=even ;;
    *) kind=odd ;;
  esac
}
i=0
even=0
while [ "$i" -lt "$1" ]; do
  i=$((i + 1))
  classify "$i"
  [ "$kind" = even ] && even=$((even + ${#i}))
  last=${i%?}
done
echo "$even $last"
