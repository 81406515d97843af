"use strict";
(function () {
  var form = document.getElementById("search"), field = document.getElementById("words");
  var told = document.getElementById("found");
  var all = Array.prototype.slice.call(document.querySelectorAll("article.memory"));
  var texts = all.map(function (one) { return one.textContent.toLowerCase(); });
  function look() {
    var words = field.value.toLowerCase().split(/\s+/).filter(Boolean), num = 0;
    all.forEach(function (one, number) {
      one.hidden = !words.every(function (word) { return texts[number].indexOf(word) >= 0; });
      num += one.hidden ? 0 : 1;
    });
    told.textContent = num + " of " + all.length + " memories";
  }
  form.hidden = false;
  field.addEventListener("input", look);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  window.addEventListener("hashchange", function () { field.value = ""; look(); });
  look();
})();
